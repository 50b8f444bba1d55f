"""The ASGI application of a replica: receives a request within its bounds, computes its response in a lane, counts it.

Every request gets a response and a count, whatever its bytes are. Only routing and small JSON happen on the event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import structlog

from pipeline.configuration.deployment.serving import Serving
from pipeline.process.clock import Clock
from pipeline.process.log_limit import LogLimit
from pipeline.serving.rest.api import RestApi
from pipeline.serving.rest.body import Body, Receiving
from pipeline.serving.rest.lane import Lane
from pipeline.serving.rest.response import Refusal, Response, error_response, json_response
from pipeline.telemetry import metrics

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]

_SMALL_BYTES = 64 << 10
_SMALL_OBJECTS = 512
_WAITING_READS = 16
_LARGE_SHARE, _READ_SHARE = 0.5, 0.1
"""Shares of their thread's time, so that neither large requests nor scrapes without end slow down predictions."""
_GIVE_WAY_S = 0.05
"""How long each piece of a large request waits for small ones."""
_STUCK_AFTER_DEADLINES = 3

logger = structlog.get_logger(__name__)


class Application:
    """Belongs to one event loop."""

    def __init__(self, api: RestApi, serving: Serving, clock: Clock) -> None:
        self._api, self._serving, self._clock = api, serving, clock
        self._small = Lane("predict", serving.threads, serving.max_waiting, clock)
        self._large = Lane("predict large", 1, serving.max_large_requests, clock, _LARGE_SHARE)
        self._reads = Lane("read", 1, _WAITING_READS, clock, _READ_SHARE)
        self._large_requests = 0
        self.receiving = Receiving(serving.read_timeout_s)
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
        metrics.HTTP_REQUESTS.labels(str(response.status)).inc()
        if path == self._api.predict_path:
            metrics.PREDICT_REQUESTS.labels(str(response.status)).inc()
        await self._send(response, body, send)

    def close(self) -> None:
        """End the threads after their current requests."""
        for lane in (self._small, self._large, self._reads):
            lane.close()

    async def _respond(self, method: str, path: str, body: Body) -> Response:
        body.check_framing()
        if path == self._api.predict_path:
            _check_method(method, path, "POST")
            return await self._predict(body)
        if path not in self._api.reads and path not in ("/healthz", "/readyz"):
            raise self._api.unknown(method, path)
        _check_method(method, path, "GET", "HEAD")
        if path in self._api.reads:
            return await self._reads.run(partial(self._api.read, path), self._serving.deadline_s)
        return self._readiness() if path == "/readyz" else self._health()

    async def _predict(self, body: Body) -> Response:
        body.check_encoding()
        body.check_length(self._serving.max_body_bytes)
        if not self._api.ready:
            raise self._api.not_ready()
        if body.declared > _SMALL_BYTES:
            return await self._predict_large(body, b"")
        content = await self.receiving.wait(body.read(_SMALL_BYTES))
        if not body.complete or len(content) > _SMALL_BYTES or content.count(b"{") > _SMALL_OBJECTS:
            return await self._predict_large(body, content)
        return await self._computed(self._small, content, _continue)

    async def _predict_large(self, body: Body, begin: bytes) -> Response:
        """Predict a request of which `begin` has been received; the lane gives way to small requests."""
        at_most = self._serving.max_large_requests
        if self._large_requests >= at_most:
            text = f"{at_most} large requests are in progress. hint: send fewer instances at once, or retry later"
            raise Refusal(503, text, ("retry-after", "1"))
        self._large_requests += 1
        try:
            content = begin + await self.receiving.wait(body.read(self._serving.max_body_bytes - len(begin)))
            if len(content) > self._serving.max_body_bytes:
                raise body.too_long(self._serving.max_body_bytes)
            return await self._computed(self._large, content, partial(self._small.wait_until_idle, _GIVE_WAY_S))
        finally:
            self._large_requests -= 1

    async def _computed(self, lane: Lane, content: bytes, pause: Callable[[], None]) -> Response:
        started_s = self._clock.monotonic_s()
        try:
            return await lane.run(partial(self._api.predict, content, pause), self._serving.deadline_s)
        finally:
            metrics.PREDICT_SECONDS.observe(self._clock.monotonic_s() - started_s)

    def _readiness(self) -> Response:
        if not self._api.ready:
            raise self._api.not_ready()
        return json_response(200, {"ready": True})

    def _health(self) -> Response:
        """503 once no thread can predict any more, because functions of the user do not return."""
        after_s = _STUCK_AFTER_DEADLINES * self._serving.deadline_s
        if self._small.stuck(after_s):
            raise Refusal(503, f"all {self._serving.threads} threads have been busy for more than {after_s:g} s")
        return json_response(200, {"healthy": True})

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
                await self.receiving.wait(body.discard())
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _continue() -> None:
    """Small requests do not pause."""


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
