"""Flink's REST interface. Every failure is a ClusterError that names the address and the request."""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from pipeline.errors import ClusterError

_TIMEOUT_S = 20.0


class FlinkRest:
    """A cluster at its REST address, `http://host:port`. Thread-safe."""

    def __init__(self, address: str, timeout_s: float = _TIMEOUT_S) -> None:
        self.address = address if "://" in address else f"http://{address}"
        self._timeout_s = timeout_s

    def get(self, path: str) -> Any:
        """The JSON response. Raises ClusterError."""
        return self._request("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """The JSON response. Raises ClusterError."""
        return self._request("POST", path, body)

    def patch(self, path: str) -> Any:
        """The JSON response. Raises ClusterError."""
        return self._request("PATCH", path, None)

    def _request(self, method: str, path: str, body: Any) -> Any:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as failure:
            reason = error_message(failure.read().decode(errors="replace"))
            raise ClusterError(
                f"flink at {self.address}: {method} {path} failed with {failure.code}: {reason}"
            ) from None
        except (OSError, ValueError, http.client.HTTPException) as failure:
            raise ClusterError(
                f"flink at {self.address} is unavailable: {failure}. hint: springtide cluster up, or set flink.rest"
            ) from None


def error_message(response: str) -> str:
    r"""The last error of an error response, without its stack trace.

    >>> error_message('{"errors": ["Internal", "job 7 not found\\n\\tat org.apache.flink"]}')
    'job 7 not found'
    >>> error_message("Bad Gateway")
    'Bad Gateway'
    """
    try:
        errors = json.loads(response)["errors"]
    except (ValueError, KeyError, TypeError):
        errors = [response]
    return str(errors[-1] if errors else response).strip().split("\n", 1)[0]
