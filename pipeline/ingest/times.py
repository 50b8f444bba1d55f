"""Event times of a file: which rows are strays far ahead of the others, and which will be late.

A stray is decided from its whole file before a row is appended, so that it never reaches the log, where it would make
the rest of its partition late. A row after the clock is none: it is appended, and set aside by every reader of the log.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.process.instant import format_instant

Int64s = npt.NDArray[np.int64]

_BIN_MS = 3_600_000
_STRAY_SHARE = 20
"""At most one row in this many is a stray; more are a part of the file like any other."""
MIN_ROWS = 10
"""A file with fewer rows has no strays: which of them is wrong cannot be decided."""
_OLD_SHARE = 100
"""The oldest rows, one in this many, do not count for how far the others are apart."""


@dataclass
class TimeProfile:
    """The times of a file, by the hour. Memory grows with the hours that have rows, not with the rows."""

    _bins: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def add(self, times_ms: Int64s) -> None:
        """Count the times of some rows."""
        if not len(times_ms):
            return
        ordered = np.sort(times_ms)
        bins, starts, counts = np.unique(ordered // _BIN_MS, return_index=True, return_counts=True)
        lasts = ordered[starts + counts - 1]
        for number, first, last, count in zip(
            bins.tolist(), ordered[starts].tolist(), lasts.tolist(), counts.tolist(), strict=True
        ):
            least, most, rows = self._bins.get(number, (first, last, 0))
            self._bins[number] = (min(least, first), max(most, last), rows + count)

    @property
    def rows(self) -> int:
        """Number of times."""
        return sum(count for *_, count in self._bins.values())

    def range_ms(self) -> tuple[int, int] | None:
        """The first and the last time; None without any."""
        return (self._bins[min(self._bins)][0], self._bins[max(self._bins)][1]) if self._bins else None

    def latest_ms(self, max_ahead_ms: int) -> int | None:
        """The latest time that is no stray; None without times.

        Strays are few, begin more than `max_ahead_ms` after all others, and further after them than these are apart.

        >>> profile = TimeProfile()
        >>> profile.add(np.array([*range(99), 10**9], np.int64))
        >>> profile.latest_ms(1_000), profile.latest_ms(10**10)
        (98, 1000000000)
        """
        ordered = [self._bins[number] for number in sorted(self._bins)]
        total, below = self.rows, 0
        oldest = _time_of_rank(ordered, total // _OLD_SHARE)
        for (_, last, count), (following, *_) in pairwise(ordered):
            below += count
            few = total >= MIN_ROWS and total - below <= max(1, total // _STRAY_SHARE)
            if few and following - last > max(max_ahead_ms, last - oldest):
                return last
        return ordered[-1][1] if ordered else None


def _time_of_rank(ordered: list[tuple[int, int, int]], rank: int) -> int:
    """A time that at most `rank` rows, or those of the same hour, are before."""
    for first, _, count in ordered:
        rank -= count
        if rank < 0:
            return first
    return 0


@dataclass(frozen=True)
class TimeLimits:
    """What the times of a file's rows are compared with.

    Attributes:
        latest_ms: a later row is a stray, unless it is after future_ms.
        future_ms: a later row lies in the future: the clock when the ingest began, plus the allowed skew.
    """

    latest_ms: int
    future_ms: int

    def strays(self, times_ms: Int64s) -> dict[int, str]:
        """By index of a stray the reason to set it aside."""
        found = np.flatnonzero((times_ms > self.latest_ms) & (times_ms <= self.future_ms))
        return {index: self._why(at_ms) for index, at_ms in zip(found.tolist(), times_ms[found].tolist(), strict=True)}

    def _why(self, at_ms: int) -> str:
        ahead_s = (at_ms - self.latest_ms) / 1000
        return f"event time {format_instant(at_ms)} is {ahead_s:.15g} s after all others of the file"


class LateRows:
    """Counts rows that will be late: older than their partition's watermark. Not thread-safe.

    Attributes:
        last_ms: by partition the largest time so far.
    """

    def __init__(self, disorder_ms: int, last_ms: Mapping[int, int]) -> None:
        self._disorder_ms = disorder_ms
        self.last_ms = dict(last_ms)

    def add(self, partition: int, times_ms: Int64s, limits: TimeLimits) -> int:
        """Number of late rows among the next ones of a partition, in the order in which they are appended."""
        times_ms = times_ms[(times_ms >= 0) & (times_ms <= limits.future_ms)]
        if not len(times_ms):
            return 0
        before = self.last_ms.get(partition, int(times_ms[0]))
        largest = np.maximum(np.maximum.accumulate(times_ms), before)
        self.last_ms[partition] = int(largest[-1])
        return int(np.count_nonzero(times_ms < largest - self._disorder_ms))
