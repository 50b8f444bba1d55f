"""One HTTP connection: uvicorn's protocol over h11, with bounds on time and on what a client may leave unfinished.

uvicorn limits neither the time to send a head nor the time to read a response. A request that is no HTTP gets the same
JSON error and count as every other one. After an error the connection is closed for writing only: were it closed with
unread bytes, the client's system would drop the response.
"""

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from pipeline.serving.front.joined_writes import JoinedWrites
from pipeline.serving.link.response import CROWDED, last_response

if TYPE_CHECKING:
    from pipeline.serving.front.connections import Connections

_FINISHED = (h11.MUST_CLOSE, h11.CLOSED)
_RESPONDING = (h11.IDLE, h11.SEND_RESPONSE)


class Connection(H11Protocol):
    """Belongs to one event loop."""

    def __init__(
        self,
        connections: "Connections",
        config: Config,
        server_state: ServerState,
        received: bytes,
    ) -> None:
        """Serve a connection from which `received` has been read."""
        super().__init__(config, server_state, {})
        self._received = received
        self._connections = connections
        self._bytes_at_once = connections.serving.max_header_bytes
        self._held: deque[bytes] = deque()
        self._ended = False
        """Whether no more bytes are expected."""
        self.served = False
        """Whether it has completed a request."""
        self.begun = False
        """Whether a part of the next head has been received."""
        self.lingering = False
        """Whether the last response was sent and received bytes are dropped."""
        self.waiting_since_s = connections.now_s()
        """Since when it waits for its client, unless it is `active`."""
        self.writing_since_s: float | None = None

    @property
    def active(self) -> bool:
        """Whether a request is in progress; the application limits its time."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.disconnected

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = self._writes = JoinedWrites(transport)
        if not self._connections.add(self):
            self.refuse(503, "too many requests are in progress. hint: retry later")
        elif self._received:
            self.data_received(self._received)
        self._received = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return
        if not self.active and not self.begun:
            self.begun, self.waiting_since_s = True, self._connections.now_s()
        # h11 limits the size of a head only between two calls. A body costs less in large parts.
        size = self._bytes_at_once
        if self.conn.their_state is h11.SEND_BODY:
            size = max(size, HIGH_WATER_LIMIT)
        self._held.extend(data[start : start + size] for start in range(0, len(data), size))
        self._feed()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has finished sending; returns whether the connection stays open for responses."""
        self._ended = True
        if self.lingering:
            return False
        if self.active and not self.cycle.more_body:
            return True
        if self.active or self.begun:
            self.conn.receive_data(b"")
            self.handle_events()  # reports that the request is incomplete
        return False

    def on_response_complete(self) -> None:
        self._writes.flush()
        self.served, self.begun, self.waiting_since_s = True, False, self._connections.now_s()
        super().on_response_complete()
        self._feed()
        if self._ended and not self.active:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is no HTTP; uvicorn calls it while it handles the error of h11."""
        failure = sys.exc_info()[1]
        self.refuse(getattr(failure, "error_status_hint", 400), f"request is not valid http: {failure or msg}")

    def refuse(self, status: int, text: str) -> None:
        """Send an error response and close the connection."""
        self._connections.counts.request(status)
        if self.conn.our_state not in _RESPONDING:  # another response has begun
            self.transport.abort()
            return
        self.transport.write(last_response(status, text))
        self._finish()

    def expire(self) -> None:
        """Close a connection that has waited for its client too long."""
        if self.lingering:
            self.transport.abort()
        else:
            limit_s = self._connections.serving.read_timeout_s
            self._close_or_refuse(408, f"the head of the request was not received within {limit_s:g} s")

    def evict(self) -> None:
        """Close a waiting connection to make room for another.

        It does not linger: a flood of connections costs as many evictions.
        """
        if self.begun:
            self._connections.counts.request(503)
            self.transport.write(last_response(503, CROWDED))
        self._held.clear()
        self.transport.close()

    def shutdown(self) -> None:
        """Close the connection, after the response of a complete request."""
        if self.lingering:
            self.transport.abort()
        elif self.active and not self.cycle.more_body:
            self.cycle.keep_alive = False
        else:
            self._ended = True  # does not wait for the client to close
            self._close_or_refuse(503, "the replica is stopping")

    def timeout_keep_alive_handler(self) -> None:
        """`Connections` closes idle connections."""

    def _feed(self) -> None:
        """Process what has been received, up to the end of the request in progress."""
        while self._held and not self.lingering and not self.transport.is_closing():
            if self.conn.their_state is h11.DONE:
                self.flow.pause_reading()
                break
            if self.conn.their_state in _FINISHED:
                self._held.clear()
                break
            super().data_received(self._held.popleft())
        self._connections.moved(self)

    def _close_or_refuse(self, status: int, text: str) -> None:
        if self.begun or self.active:
            self.refuse(status, text)
        else:
            self._finish()

    def _finish(self) -> None:
        """Close the connection for writing, and entirely once the client has closed it."""
        self._held.clear()
        if self.active:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._ended or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.lingering, self.waiting_since_s = True, self._connections.now_s()
            self.transport.write_eof()
            self.flow.resume_reading()
            self._connections.moved(self)
