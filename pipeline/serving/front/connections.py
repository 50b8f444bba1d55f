"""The open connections of a server: their number, and those that have waited for their client too long."""

import resource
import socket
from collections.abc import Sized

from pipeline.configuration.deployment.serving import Serving
from pipeline.process.clock import Clock
from pipeline.serving.front.body import Receiving
from pipeline.serving.front.connection import Connection
from pipeline.serving.front.counts import Counts
from pipeline.serving.front.pending import PendingConnections

_CLOSING = 128
"""Connections that are closed for writing only, so that their clients receive the last response."""
_RESERVED_FILES = _CLOSING + 256
"""Files that do not count as connections: closing, accepted at once, and those of the log."""


class Connections:
    """Belongs to one event loop."""

    def __init__(self, serving: Serving, clock: Clock) -> None:
        """Limit the connections of a server by `serving` and by the number of files that the process may open."""
        self.serving, self.counts, self._clock = serving, Counts(), clock
        self.receiving = Receiving(serving.read_timeout_s)
        self._limit = min(serving.max_connections, allow_files(serving.max_connections + _RESERVED_FILES))
        self.pending = PendingConnections(serving.max_header_bytes, self.counts, clock)
        self._new: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._active: dict[Connection, None] = {}
        self._closing: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self.pending) + len(self._new) + len(self._idle) + len(self._active)

    def now_s(self) -> float:
        """Seconds that never decrease."""
        return self._clock.monotonic_s()

    def accept(self, accepted: socket.socket) -> bytes | None:
        """Hold a connection that was just accepted until its head is complete.

        Returns what has been received, if it can be served, or refused because all others are in use.
        """
        return self.pending.add(accepted) if self._has_room() else b""

    def add(self, connection: Connection) -> bool:
        """Add an open connection; returns False if all others are in use."""
        admitted = self._has_room()
        self._new[connection] = None
        return admitted

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        for group in (self._new, self._idle, self._active, self._closing):
            group.pop(connection, None)

    def moved(self, connection: Connection) -> None:
        """Follow a connection that has received bytes or sent a response."""
        group = self._group_of(connection)
        if connection in group:
            return
        self.remove(connection)
        group[connection] = None
        if len(self._closing) > _CLOSING:
            oldest = next(iter(self._closing))
            self.remove(oldest)
            oldest.transport.abort()

    async def close_overdue(self) -> None:
        """Close connections that have waited too long for their client to send, or to read."""
        await self.pending.close_overdue(self.serving.read_timeout_s)
        now_s = self.now_s()
        for connection in (*self._new, *self._idle, *self._active, *self._closing):
            if self._unread(connection, now_s):
                self.counts.closed("unread")
                connection.transport.abort()
            elif self._overdue(connection, now_s):
                self.counts.closed("timeout")
                connection.expire()

    def _group_of(self, connection: Connection) -> dict[Connection, None]:
        if connection.lingering:
            return self._closing
        if connection.active:
            return self._active
        return self._idle if connection.served else self._new

    def _has_room(self) -> bool:
        return len(self) < self._limit or self._make_room()

    def _make_room(self) -> bool:
        """Close what has waited longest in the largest group: without a request, idle, or with an incomplete body.

        Hostile clients of one kind thus close each other.
        """
        groups: tuple[Sized, ...] = (self.pending, self.receiving, self._new, self._idle)
        largest = max(groups, key=len)
        if not len(largest):
            return False
        if largest is self.pending:
            self.pending.evict_longest()
        elif largest is self.receiving:
            self.receiving.interrupt_longest()
        else:
            longest = next(iter(self._new if largest is self._new else self._idle))
            self.remove(longest)
            longest.evict()
        self.counts.closed("limit")
        return True

    def _overdue(self, connection: Connection, now_s: float) -> bool:
        if connection.active:
            return False
        idle = connection.served and not connection.begun and not connection.lingering
        limit_s = self.serving.keep_alive_s if idle else self.serving.read_timeout_s
        return now_s - connection.waiting_since_s > limit_s

    def _unread(self, connection: Connection, now_s: float) -> bool:
        """Whether the client has not read its response in time."""
        if not connection.transport.get_write_buffer_size():
            connection.writing_since_s = None
            return False
        if connection.writing_since_s is None:
            connection.writing_since_s = now_s
        return now_s - connection.writing_since_s > self.serving.write_timeout_s


def allow_files(wanted: int) -> int:
    """Let the process open `wanted` files if the system allows it; returns how many of them may be connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft - min(_RESERVED_FILES, soft // 2)
