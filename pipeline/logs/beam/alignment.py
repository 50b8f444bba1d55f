"""Event-time alignment: how far a partition may be read ahead of the others in event time.

Clicks come in far fewer records than impressions. Read as fast as possible, they would run hours ahead and wait in the
join by the million. Alignment bounds what the join holds; it does not change what the join emits.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.arrays.block import EventKind
from pipeline.process.clock import Clock

_WAIT_FOR_REPORTS_S = 30.0


def event_time_limit(unfinished_ms: Iterable[int | None], lead_ms: int) -> int | None:
    """The max event time (ms) up to which any partition may be read; None without a limit.

    Args:
        unfinished_ms: the max event time of each partition with unread records; None for one without an event.
        lead_ms: how far a partition may be ahead of the slowest.

    >>> event_time_limit([5_000, None, 7_000], 1_000), event_time_limit([None], 1_000)
    (6000, None)
    """
    known = [at_ms for at_ms in unfinished_ms if at_ms is not None]
    return min(known) + lead_ms if known else None


class _Report(NamedTuple):
    max_event_time_ms: int | None
    more: bool


class EventTimeAlignment:
    """Aligns readers that run in several processes: each publishes its progress in a small file that the others read.

    The files are hints: losing one loses nothing, so they are not fsynced. A partition without a report since this
    object was created is waited for, up to a time limit. Not thread-safe.
    """

    def __init__(
        self,
        folder: Path,
        own: tuple[EventKind, int],
        all_of: Iterable[tuple[EventKind, int]],
        lead_ms: int,
        clock: Clock,
    ) -> None:
        """For the reader of partition `own` among `all_of`, which may be ahead by `lead_ms` of event time."""
        self._own, self._lead_ms, self._clock = _path(folder, own), lead_ms, clock
        self._others = [_path(folder, at) for at in all_of if at != own]
        self._wait_until_s = clock.monotonic_s() + _WAIT_FOR_REPORTS_S
        folder.mkdir(parents=True, exist_ok=True)
        self.publish(None, more=True)
        # By the file system's clock: earlier reports are from readers of an earlier run.
        self._since_ns = self._own.stat().st_mtime_ns

    def publish(self, max_event_time_ms: int | None, *, more: bool) -> None:
        """Report that this partition is read up to `max_event_time_ms` (None: no event), and has `more` to read now."""
        temporary = self._own.with_name(f".{self._own.name}-{os.getpid()}")
        temporary.write_text(json.dumps([max_event_time_ms, more]), encoding="utf-8")
        temporary.replace(self._own)

    def allows_reading(self, max_event_time_ms: int | None) -> bool:
        """Whether this partition, read up to `max_event_time_ms`, may be read further.

        The slowest partition always may. A partition that is read to its end blocks no other.
        """
        if max_event_time_ms is None:
            return True
        unfinished = [report for report in self._reports() if report is None or report.more]
        known = [r.max_event_time_ms for r in unfinished if r is not None and r.max_event_time_ms is not None]
        if len(known) < len(unfinished) and self._clock.monotonic_s() < self._wait_until_s:
            return False
        limit_ms = event_time_limit(known, self._lead_ms)
        return limit_ms is None or max_event_time_ms <= limit_ms

    def others_have_more(self) -> bool:
        """Whether some other partition has records to read now, according to the reports."""
        return any(report is not None and report.more for report in self._reports())

    def _reports(self) -> Iterator[_Report | None]:
        """Of each other partition; None without a report since this object was created."""
        for path in self._others:
            try:
                current = path.stat().st_mtime_ns >= self._since_ns
                yield _Report(*json.loads(path.read_text(encoding="utf-8"))) if current else None
            except (OSError, ValueError):
                yield None


def _path(folder: Path, at: tuple[EventKind, int]) -> Path:
    return folder / f"{at[0]}-{at[1]}"
