"""The rows of a bucket whose windows for one feedback are open: ranges, so that closing one does not read them all."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipeline.arrays.types import Int64s

NEVER_MS = 2**62
"""Later than every event."""
MERGED_ROWS = 4_096
"""Neighbouring ranges are merged up to so many rows."""


class _OpenRange(NamedTuple):
    """Rows from `start` to `stop`, some of whose windows are open; `lowest_at` is the lowest time of those."""

    start: int
    stop: int
    lowest_at: int


class OpenWindows:
    """Not thread-safe.

    Attributes:
        lowest_at: a lower bound for the times of open rows; `NEVER_MS` if all are closed.
    """

    def __init__(self) -> None:
        self.lowest_at = NEVER_MS
        self._ranges: list[_OpenRange] = []

    def add(self, start: int, stop: int, lowest_at: int) -> None:
        """Add the rows from `start` to `stop`, which follow all others."""
        self.lowest_at = min(self.lowest_at, lowest_at)
        part = _OpenRange(start, stop, lowest_at)
        if self._ranges:
            last = self._ranges[-1]
            if last.stop == start and stop - last.start <= MERGED_ROWS:
                self._ranges.pop()
                part = _OpenRange(last.start, stop, min(last.lowest_at, lowest_at))
        self._ranges.append(part)

    def close_until(self, at_ms: int, close: Callable[[tuple[int, int]], tuple[Int64s, int | None]]) -> Int64s:
        """Close the windows of rows with time at most `at_ms`.

        `close` closes those of a range (start, stop) and returns the rows to emit and the lowest time of a row that is
        still open. Returns [m] the rows to emit, ascending.
        """
        to_emit: list[Int64s] = []
        still_open: list[_OpenRange] = []
        for part in self._ranges:
            if part.lowest_at > at_ms:
                still_open.append(part)
                continue
            rows, lowest_open = close((part.start, part.stop))
            to_emit.append(rows)
            if lowest_open is not None:
                still_open.append(_OpenRange(part.start, part.stop, lowest_open))
        self._ranges = still_open
        self.lowest_at = min((part.lowest_at for part in still_open), default=NEVER_MS)
        return np.concatenate(to_emit) if to_emit else np.zeros(0, np.int64)
