"""Standard streams whose writes never block and never raise.

A replica whose reader of stderr has stopped or ended, or whose terminal was closed, continues without its messages.
"""

import io
import logging
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

_AT_ONCE_BYTES = 4_096
"""A pipe that is ready for writing accepts this much without blocking (POSIX: PIPE_BUF)."""


class UnblockedStream(io.TextIOBase):
    """Writes text to a file descriptor as long as it accepts bytes at once, and drops the rest. Thread-safe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._dropped = 0

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def write(self, text: str) -> int:
        """Write `text`; after a gap, the number of dropped writes precedes it."""
        with self._lock:
            if self._dropped and self._send(f"[{self._dropped} messages were dropped]\n"):
                self._dropped = 0
            if not self._send(text):
                self._dropped += 1
        return len(text)

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def _send(self, text: str) -> bool:
        """Write all of `text`; returns False if a part of it was not accepted."""
        content = text.encode("utf-8", "backslashreplace")
        while content:
            try:
                if not self._accepts():
                    return False
                content = content[os.write(self._descriptor, content[:_AT_ONCE_BYTES]) :]
            except OSError:  # the reader has ended, or the terminal was closed
                return False
        return True

    def _accepts(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(0))


@contextmanager
def without_blocking() -> Iterator[None]:
    """Inside, stdout, stderr and the handlers of `logging` that write to stderr are unblocked streams."""
    stdout, stderr = sys.stdout, sys.stderr
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is stderr
    ]
    stdout.flush()
    sys.stdout, sys.stderr = _unblocked(stdout), _unblocked(stderr)
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(stderr)
        sys.stdout, sys.stderr = stdout, stderr


def _unblocked(stream: TextIO) -> TextIO:
    """An unblocked stream on the descriptor of `stream`, or `stream` itself if it has none, as under a test."""
    with suppress(OSError, ValueError, AttributeError):
        return cast(TextIO, UnblockedStream(stream.fileno()))
    return stream
