"""Flink's REST interface: questions and orders as JSON. Every failure is a ClusterError that names what was asked."""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from pipeline.errors import ClusterError

_PATIENCE_S = 20.0


class FlinkRest:
    """A cluster at its REST address, `http://host:port`. Thread-safe."""

    def __init__(self, address: str, patience_s: float = _PATIENCE_S) -> None:
        self.address = address if "://" in address else f"http://{address}"
        self._patience_s = patience_s

    def get(self, path: str) -> Any:
        """The answer to a question. Raises ClusterError."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        """The answer to an order. Raises ClusterError."""
        return self._ask("POST", path, body)

    def patch(self, path: str) -> Any:
        """The answer to a change. Raises ClusterError."""
        return self._ask("PATCH", path, None)

    def _ask(self, method: str, path: str, body: Any) -> Any:
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, sent, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self._patience_s) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as failure:
            said = problem_in(failure.read().decode(errors="replace"))
            raise ClusterError(f"flink at {self.address} answers {failure.code} to {method} {path}: {said}") from None
        except (OSError, ValueError, http.client.HTTPException) as failure:
            raise ClusterError(
                f"flink at {self.address} does not answer: {failure}. hint: springtide cluster up, or set flink.rest"
            ) from None


def problem_in(answer: str) -> str:
    r"""What a person wants to read of a refusal: its last error, without the stack trace.

    >>> problem_in('{"errors": ["Internal", "job 7 not found\\n\\tat org.apache.flink"]}')
    'job 7 not found'
    >>> problem_in("Bad Gateway")
    'Bad Gateway'
    """
    try:
        errors = json.loads(answer)["errors"]
    except (ValueError, KeyError, TypeError):
        errors = [answer]
    return str(errors[-1] if errors else answer).strip().split("\n", 1)[0]
