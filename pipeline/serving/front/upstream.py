"""The process that predicts, as the front sees it: two channels, one for what must be quick and one for what is large.

A large body never delays a small request on the way.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import structlog

from pipeline.serving.link.channel import Decoder, Kind, Message, decode_response, encode_message
from pipeline.serving.link.paths import HEALTH, READINESS
from pipeline.serving.link.response import Refusal, Response, error_response


class Upstream:
    """Belongs to one event loop."""

    def __init__(self, quick: socket.socket, bulk: socket.socket, deadline_s: float) -> None:
        self._quick, self._bulk = _End(quick, self._received), _End(bulk, self._received)
        self._deadline_s = deadline_s
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Response]] = {}
        self._on_stop: Callable[[], None] = lambda: None
        self._on_lost: Callable[[], None] = lambda: None

    async def connect(self, on_stop: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Begin; `on_stop` is called once the front is to end, `on_lost` once the other process has ended."""
        self._on_stop, self._on_lost = on_stop, on_lost
        for end in (self._quick, self._bulk):
            await end.connect()
        self._quick.send(Message(Kind.STARTED))

    async def predict(self, body: bytes) -> Response:
        """The response to a small prediction request. Raises Refusal with 504 after the deadline."""
        return await self._response(self._quick, Kind.PREDICT, body)

    async def predict_large(self, body: bytes) -> Response:
        """The response to a large prediction request. Raises Refusal with 504 after the deadline."""
        return await self._response(self._bulk, Kind.PREDICT_LARGE, body)

    async def recall(self, body: bytes) -> Response:
        """The response to a recall request. Raises Refusal with 504 after the deadline."""
        return await self._response(self._quick, Kind.RECALL, body)

    async def read(self, path: str) -> Response:
        """The response to a GET. Raises Refusal with 504 after the deadline."""
        end = self._quick if path in (HEALTH, READINESS) else self._bulk
        return await self._response(end, Kind.READ, path.encode())

    def send_counts(self, taken: bytes) -> None:
        """Send what was counted; reads that follow see it."""
        self._bulk.send(Message(Kind.COUNTS, 0, taken))

    def log(self, _logger: object, _method: str, event: Any) -> Any:
        """Send a line of the log; a processor of structlog."""
        self._bulk.send(Message(Kind.PROBLEM, 0, json.dumps(event, default=str).encode()))
        raise structlog.DropEvent

    def close(self) -> None:
        """Close the channels, after what was sent."""
        self._quick.close()
        self._bulk.close()

    async def _response(self, end: "_End", kind: Kind, content: bytes) -> Response:
        self._number += 1
        number = self._number
        waiting: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        end.send(Message(kind, number, content))
        try:
            async with asyncio.timeout(self._deadline_s):
                return await waiting
        except TimeoutError:
            text = f"no response within {self._deadline_s:g} s. hint: send fewer instances, or retry"
            raise Refusal(504, text) from None
        finally:
            del self._waiting[number]

    def _received(self, message: Message | None) -> None:
        """Handle a message; None at the end of a channel."""
        if message is None:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_result(error_response(503, "the replica is stopping"))
            self._on_lost()
        elif message.kind is Kind.STOP:
            self._on_stop()
        elif (waits := self._waiting.get(message.number)) and not waits.done():
            waits.set_result(decode_response(message.content))


class _End(asyncio.Protocol):
    """One channel."""

    def __init__(self, connected: socket.socket, received: Callable[[Message | None], None]) -> None:
        self._connected, self._received, self._decoder = connected, received, Decoder()
        self._transport: asyncio.WriteTransport | None = None

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._connected)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            self._received(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._received(None)

    def send(self, message: Message) -> None:
        assert self._transport is not None, "the channel is not connected"
        self._transport.write(encode_message(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
