"""A transport that sends the parts of a response in one system call.

uvicorn writes head and body one after the other, which costs every client of the event loop a second system call.
"""

import asyncio
from typing import Any


class JoinedWrites(asyncio.Transport):
    """Belongs to one event loop. `flush` sends what was written; otherwise the next turn of the loop does."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:  # type: ignore[override]
        """Send `data` with what is written next."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Send what was written."""
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)

    def write_eof(self) -> None:
        """Close for writing, after what was written."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close, after what was written."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._parts.clear()
        self._transport.abort()

    def can_write_eof(self) -> bool:
        """Whether it can be closed for writing only."""
        return self._transport.can_write_eof()

    def is_closing(self) -> bool:
        """Whether it is closing or closed."""
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Bytes that the client has not received."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._parts))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport has under `name`."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Receive no more."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Receive again."""
        self._transport.resume_reading()
