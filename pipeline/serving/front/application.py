"""The ASGI application of a replica: receives a request within its bounds, has its response computed, counts it.

Every request gets a response and a count, whatever its bytes are.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import structlog

from pipeline.process.clock import Clock
from pipeline.process.log_limit import LogLimit
from pipeline.serving.front.body import Body
from pipeline.serving.front.connections import Connections
from pipeline.serving.front.upstream import Upstream
from pipeline.serving.link.paths import METRICS, Paths
from pipeline.serving.link.response import Refusal, Response, error_response

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]

_SMALL_BYTES = 64 << 10
_SMALL_OBJECTS = 512

logger = structlog.get_logger(__name__)


class Application:
    """Belongs to one event loop."""

    def __init__(self, paths: Paths, connections: Connections, upstream: Upstream, clock: Clock) -> None:
        self._paths, self._connections, self._upstream, self._clock = paths, connections, upstream, clock
        self._serving, self._receiving = connections.serving, connections.receiving
        self._large_requests = 0
        self._log_limit = LogLimit(clock)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Handle one request."""
        body, path = Body(scope["headers"], receive), _path(scope["path"])
        try:
            response = await self._respond(scope["method"], path, body)
        except Refusal as refusal:
            response = refusal.response
        except asyncio.CancelledError:
            response = error_response(503, "the replica is stopping")
        except Exception as failure:
            response = error_response(500, f"{type(failure).__name__}: {failure}")
            if (suppressed := self._log_limit.allow()) is not None:
                logger.exception("request failed", suppressed=suppressed)
        self._connections.counts.request(response.status)
        if path == self._paths.predict:
            self._connections.counts.prediction(response.status)
        await self._send(response, body, send)

    def send_counts(self) -> None:
        """Pass on what was counted, to be exported."""
        self._upstream.send_counts(self._connections.counts.take(len(self._connections)))

    async def _respond(self, method: str, path: str, body: Body) -> Response:
        body.check_framing()
        if path == self._paths.predict:
            _check_method(method, path, "POST")
            return await self._predict(body)
        if path == self._paths.recall:
            _check_method(method, path, "POST")
            return await self._recall(body)
        if path not in self._paths.reads:
            known = ", ".join((self._paths.predict, self._paths.recall, *self._paths.reads))
            raise Refusal(404, f"{method} {path[:200]} is unknown. hint: {known}")
        _check_method(method, path, "GET", "HEAD")
        if path == METRICS:
            self.send_counts()
        return await self._upstream.read(path)

    async def _predict(self, body: Body) -> Response:
        body.check_encoding()
        body.check_length(self._serving.max_body_bytes)
        if body.declared > _SMALL_BYTES:
            return await self._predict_large(body, b"")
        content = await self._receiving.wait(body.read(_SMALL_BYTES))
        if not body.complete or len(content) > _SMALL_BYTES or content.count(b"{") > _SMALL_OBJECTS:
            return await self._predict_large(body, content)
        return await self._computed(self._upstream.predict(content))

    async def _recall(self, body: Body) -> Response:
        """Find items for a few users; a large body is refused."""
        body.check_encoding()
        body.check_length(_SMALL_BYTES)
        content = await self._receiving.wait(body.read(_SMALL_BYTES))
        if not body.complete or len(content) > _SMALL_BYTES:
            raise body.too_long(_SMALL_BYTES)
        return await self._upstream.recall(content)

    async def _predict_large(self, body: Body, begin: bytes) -> Response:
        """Predict a request of which `begin` has been received; it gives way to small requests."""
        at_most = self._serving.max_large_requests
        if self._large_requests >= at_most:
            text = f"{at_most} large requests are in progress. hint: send fewer instances at once, or retry later"
            raise Refusal(503, text, ("retry-after", "1"))
        self._large_requests += 1
        try:
            content = begin + await self._receiving.wait(body.read(self._serving.max_body_bytes - len(begin)))
            if len(content) > self._serving.max_body_bytes:
                raise body.too_long(self._serving.max_body_bytes)
            return await self._computed(self._upstream.predict_large(content))
        finally:
            self._large_requests -= 1

    async def _computed(self, response: Awaitable[Response]) -> Response:
        started_s = self._clock.monotonic_s()
        try:
            return await response
        finally:
            self._connections.counts.computed(self._clock.monotonic_s() - started_s)

    async def _send(self, response: Response, body: Body, send: Send) -> None:
        headers = [("content-type", response.content_type), ("content-length", str(len(response.body)))]
        headers += response.headers
        if not (body.complete or body.short):
            headers.append(("connection", "close"))
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": response.status, "headers": encoded})
        await send({"type": "http.response.body", "body": response.body, "more_body": not body.complete})
        if not body.complete:
            # A connection closed with unread bytes is reset, and the client may lose the response.
            with suppress(Refusal):
                await self._receiving.wait(body.discard())
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _path(target: str) -> str:
    """The path of a request target; clients of a proxy send a complete URL."""
    try:
        return target if target.startswith("/") else urlsplit(target).path
    except ValueError:
        return target


def _check_method(method: str, path: str, *allowed: str) -> None:
    if method not in allowed:
        known = ", ".join(allowed)
        raise Refusal(405, f"{method[:20]} {path} is not allowed. hint: use {known}", ("allow", known))
