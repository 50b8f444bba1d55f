"""The body of an HTTP request, as the ASGI server receives it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from pipeline.serving.link.response import CROWDED, Refusal

Received = TypeVar("Received")

_SHORT_BYTES = 64 << 10
_DISCARDED_BYTES = 256 << 20
_DISCARD_PAUSE_S = 0.02
"""Limits what a client that sends an unwanted body can cost."""


class Body:
    """Belongs to one request."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], receive: Callable[[], Awaitable[Any]]) -> None:
        values = dict(headers)
        length, in_chunks = values.get(b"content-length"), b"transfer-encoding" in values
        self._two_lengths = length is not None and in_chunks
        self.declared = int(length) if length and not in_chunks else 0
        """0 also if the length is unknown."""
        self.complete = not self.declared and not in_chunks
        self._encoding = values.get(b"content-encoding", b"identity").decode("latin-1").lower()
        self._waits_for_continue = values.get(b"expect", b"").lower() == b"100-continue"
        self._receive, self._received = receive, 0

    @property
    def short(self) -> bool:
        """Whether so little remains to be received that the connection can be kept."""
        return 0 < self.declared - self._received <= _SHORT_BYTES and not self._waits_for_continue

    def check_framing(self) -> None:
        """Raise Refusal for a body whose end a proxy could see elsewhere (RFC 9112, 6.3)."""
        if self._two_lengths:
            raise Refusal(400, "request has content-length and transfer-encoding. hint: send one of them")

    def check_encoding(self) -> None:
        """Raise Refusal for a compressed body."""
        if self._encoding != "identity":
            text = f"content-encoding {self._encoding[:60]} is not supported. hint: send the body as it is"
            raise Refusal(415, text, ("accept-encoding", "identity"))

    def check_length(self, at_most: int) -> None:
        """Raise Refusal if the declared length exceeds `at_most`."""
        if self.declared > at_most:
            raise self.too_long(at_most)

    def too_long(self, at_most: int) -> Refusal:
        """The refusal of a body longer than `at_most`."""
        length = f"{self.declared} bytes" if self.declared else f"more than {at_most} bytes"
        return Refusal(413, f"body has {length}, at most {at_most} are accepted. hint: send fewer instances at once")

    async def read(self, at_most: int) -> bytes:
        """The rest of the body; receiving stops after more than `at_most` bytes.

        Raises Refusal if the client has closed the connection.
        """
        parts, received = [], 0
        while not self.complete and received <= at_most:
            part = await self._next()
            parts.append(part)
            received += len(part)
        return b"".join(parts)

    async def discard(self) -> None:
        """Receive the rest of the body and drop it, as far as it is not too much."""
        discarded = 0
        # A client that waits for 100 Continue does not send its body.
        while not (self.complete or self._waits_for_continue or discarded > _DISCARDED_BYTES):
            discarded += len(await self._next())
            await asyncio.sleep(_DISCARD_PAUSE_S)

    async def _next(self) -> bytes:
        self._waits_for_continue = False  # the server sends 100 Continue now
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.complete = True
            raise Refusal(400, "the connection was closed before the body was complete")
        self.complete = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        self._received += len(part)
        return part


class Receiving:
    """The requests whose bodies are incomplete. Belongs to one event loop."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._limits: dict[asyncio.Timeout, None] = {}

    async def wait(self, received: Awaitable[Received]) -> Received:
        """The result of `received`; raises Refusal after the timeout, or if it is interrupted."""
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                self._limits[limit] = None
                return await received
        except TimeoutError:
            if limit in self._limits:
                raise Refusal(408, f"the body was not received within {self._timeout_s:g} s") from None
            raise Refusal(503, CROWDED) from None
        finally:
            self._limits.pop(limit, None)

    def __len__(self) -> int:
        return len(self._limits)

    def interrupt_longest(self) -> None:
        """Refuse the request, of at least one, that has waited longest for its body."""
        longest = next(iter(self._limits))
        del self._limits[longest]
        if not longest.expired():
            longest.reschedule(0)
