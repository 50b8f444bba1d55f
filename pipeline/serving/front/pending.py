"""Accepted connections whose first request has no complete head yet.

Each is a socket and the bytes received, in one selector of their own: a client that sends nothing, or half a head,
costs neither a transport nor a parser, and closing it to make room costs a few system calls. Once a head is complete,
or cannot become one, the connection is handed over.
"""

import asyncio
import selectors
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.process.clock import Clock
from pipeline.serving.front.counts import Counts
from pipeline.serving.link.response import CROWDED, last_response

_READ_AT_ONCE = 64
"""Connections that are read before other clients are served."""
_CLOSED_AT_ONCE = 8
_FIRST_VISIBLE = 0x21
"""A head begins with a method; another first byte is no HTTP."""


@dataclass(eq=False)
class _Pending:
    """One connection."""

    connection: socket.socket
    since_s: float
    """When it was accepted, or its first byte received."""
    watched: bool = False
    received: bytearray = field(default_factory=bytearray)


class PendingConnections:
    """Belongs to one event loop, which calls `read` while its file is readable."""

    def __init__(self, max_header_bytes: int, counts: Counts, clock: Clock) -> None:
        """Hold connections whose head is incomplete and shorter than `max_header_bytes`."""
        self._max_header_bytes, self._counts, self._clock = max_header_bytes, counts, clock
        self._selector = selectors.DefaultSelector()
        self._held: dict[int, _Pending] = {}
        self._ready: deque[_Pending] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def fileno(self) -> int:
        """The file that is readable while a connection is."""
        return self._selector.fileno()  # type: ignore[attr-defined, no-any-return]

    def add(self, accepted: socket.socket) -> bytes | None:
        """Hold a connection that was just accepted; if its head can be served at once, what has been received."""
        pending = self._held[accepted.fileno()] = _Pending(accepted, self._clock.monotonic_s())
        if self._read(pending):
            return bytes(pending.received)
        if accepted.fileno() in self._held:
            self._selector.register(accepted, selectors.EVENT_READ, pending)
            pending.watched = True
        return None

    def read(self) -> list[tuple[socket.socket, bytes]]:
        """Read some of the connections that have received bytes; the others follow with the next call.

        Returns those whose head can be served, each with what has been received. They are no longer held.
        """
        if not self._ready:
            self._ready.extend(key.data for key, _ in self._selector.select(0))
        found = []
        for _ in range(min(_READ_AT_ONCE, len(self._ready))):
            pending = self._ready.popleft()
            if self._held.get(pending.connection.fileno()) is pending and self._read(pending):
                found.append((pending.connection, bytes(pending.received)))
        return found

    def evict_longest(self) -> None:
        """Close the connection, of at least one, that was accepted first."""
        pending = next(iter(self._held.values()))
        self._refuse(pending, 503, CROWDED)

    async def close_overdue(self, limit_s: float) -> None:
        """Close connections that have waited for their client longer than `limit_s`, a few per turn of the loop."""
        now_s = self._clock.monotonic_s()
        overdue = [pending for pending in self._held.values() if now_s - pending.since_s > limit_s]
        for number, pending in enumerate(overdue, 1):
            if self._held.get(pending.connection.fileno()) is pending:
                self._counts.closed("timeout")
                self._refuse(pending, 408, f"the head of the request was not received within {limit_s:g} s")
            if not number % _CLOSED_AT_ONCE:
                await asyncio.sleep(0)

    def close(self) -> None:
        """Close all connections."""
        for pending in list(self._held.values()):
            self._refuse(pending, 503, "the replica is stopping")
        self._selector.close()

    def _read(self, pending: _Pending) -> bool:
        """Receive what there is; returns whether the head can be served, and the connection is no longer held."""
        try:
            part = pending.connection.recv(self._max_header_bytes - len(pending.received))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # the client has reset it
            part = b""
            pending.received.clear()
        before = len(pending.received)
        if not part and not before:
            self._forget(pending).close()
            return False
        if not before:
            pending.since_s = self._clock.monotonic_s()
        pending.received += part
        if part and not self._decided(pending.received, before):
            return False
        self._forget(pending)
        return True

    def _decided(self, received: bytearray, before: int) -> bool:
        """Whether the head is complete, or cannot become one; `before` bytes were not enough."""
        if received[0] < _FIRST_VISIBLE or len(received) >= self._max_header_bytes:
            return True
        start = max(0, before - 2)
        return received.find(b"\n\r\n", start) >= 0 or received.find(b"\n\n", start) >= 0

    def _refuse(self, pending: _Pending, status: int, text: str) -> None:
        """Close a connection at once, with a response if a part of a request has been received."""
        connection = self._forget(pending)
        if pending.received:
            self._counts.request(status)
            with suppress(OSError):
                connection.send(last_response(status, text))
        connection.close()

    def _forget(self, pending: _Pending) -> socket.socket:
        del self._held[pending.connection.fileno()]
        if pending.watched:
            self._selector.unregister(pending.connection)
        return pending.connection
