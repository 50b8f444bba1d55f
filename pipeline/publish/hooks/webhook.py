"""A webhook: POSTs a notice, within a total deadline.

A notice is delivered once a 2xx status has arrived; the body of the answer is not read. The URL may contain a password
or a token: no message shows more of it than `shown_url`.
"""

import asyncio
import logging
from functools import cached_property
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

import httpx

from pipeline.configuration.deployment.address import shown_url
from pipeline.configuration.model.training import HookDelivery
from pipeline.publish.hooks.hook_queue import Failure

_REPEATED_REDIRECTS = (307, 308)
_RETRIED = (408, 425, 429)
_MIN_SECRET = 4
"""Shorter parts of a URL, such as `/x`, are no secrets, and replacing them would spoil messages."""
_MAX_PROBLEM = 300

# At level INFO httpx logs the complete URL of each request.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Webhook:
    """Delivers notices to one URL. One thread at a time."""

    def __init__(self, url: str, content_type: str, delivery: HookDelivery) -> None:
        self.name = shown_url(url)
        self._url, self._delivery = url, delivery
        self._headers = {"Content-Type": content_type, "User-Agent": "springtide"}

    def send(self, encoded: bytes) -> Failure | None:
        """Deliver a notice; returns why it was not delivered. Name lookup, redirects and answer share one deadline."""
        loop, certificates = asyncio.new_event_loop(), self._certificates
        try:
            attempt = asyncio.wait_for(self._post(encoded, certificates), self._delivery.timeout_s)
            return loop.run_until_complete(attempt)
        except TimeoutError:
            return Failure(f"no answer within {self._delivery.timeout_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as failure:
            return Failure(self._without_secrets(str(failure) or type(failure).__name__))
        finally:
            loop.close()  # does not wait for a name lookup that hangs, as asyncio.run would

    @cached_property
    def _certificates(self) -> SSLContext:
        return httpx.create_ssl_context()

    async def _post(self, encoded: bytes, certificates: SSLContext) -> Failure | None:
        async with httpx.AsyncClient(verify=certificates, timeout=None, headers=self._headers) as client:
            request: httpx.Request | None = client.build_request("POST", self._url, content=encoded)
            followed = 0
            while request is not None:
                response = await client.send(request, stream=True)
                await response.aclose()
                request = _following(response) if followed < self._delivery.redirects else None
                followed += 1
            return _verdict(response)

    def _without_secrets(self, text: str) -> str:
        """A message of the HTTP library without any part of the URL that may be secret."""
        parts = urlsplit(self._url)
        secrets: tuple[Any, ...] = (self._url, parts.password, parts.username, parts.query, parts.path)
        for secret in secrets:
            if secret and len(secret) >= _MIN_SECRET:
                text = text.replace(secret, "…")
        return text[:_MAX_PROBLEM]


def _following(response: httpx.Response) -> httpx.Request | None:
    """The same POST to where the response redirects; None for other responses, and for a change from https to http."""
    following = response.next_request
    if response.status_code not in _REPEATED_REDIRECTS or following is None:
        return None
    downgrade = response.request.url.scheme == "https" and following.url.scheme != "https"
    return None if downgrade else following


def _verdict(response: httpx.Response) -> Failure | None:
    if response.is_success:
        return None
    status = f"HTTP status {response.status_code}"
    if response.is_redirect:
        hint = "hint: configure the final URL, or raise publish.hooks.redirects for 307 and 308"
        target = response.next_request
        place = f" to {shown_url(str(target.url))}" if target else ""
        return Failure(f"{status}, a redirect{place}, which is not followed. {hint}", final=True)
    return Failure(status, final=response.is_client_error and response.status_code not in _RETRIED)
