"""How far a partition is read ahead of the others in event time, where each is read on its own.

Clicks come in far fewer records than impressions; read as fast as they can be they would run hours ahead and wait in
the join by the million. Each reader tells here how far it is, in a small file that the others look at: a hint, which
changes what is held and never what is said, so nothing is lost with it and nothing waits for a disk.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.arrays.block import EventKind
from pipeline.process.clock import Clock

_PATIENCE_S = 30.0


class _Told(NamedTuple):
    max_event_time_ms: int | None
    more: bool


class Lead:
    """What the readers of one project tell each other. Not thread-safe; processes take care of their own files.

    Of a partition that nobody has told of since this was made nothing is known: it is waited for, though not for ever.
    """

    def __init__(
        self,
        folder: Path,
        own: tuple[EventKind, int],
        all_of: Iterable[tuple[EventKind, int]],
        lead_ms: int,
        clock: Clock,
    ) -> None:
        """For the reader of `own` among the partitions `all_of`, which may lead by `lead_ms` of event time."""
        self._own, self._lead_ms, self._clock = _path(folder, own), lead_ms, clock
        self._others = [_path(folder, at) for at in all_of if at != own]
        self._patient_until_s = clock.monotonic_s() + _PATIENCE_S
        folder.mkdir(parents=True, exist_ok=True)
        self.tell(None, more=True)
        # As the disk has it: what was told before is of readers that are no more.
        self._since_ns = self._own.stat().st_mtime_ns

    def tell(self, max_event_time_ms: int | None, *, more: bool) -> None:
        """Record that this partition was read up to `max_event_time_ms` (None: nothing), and whether it has `more`."""
        beside = self._own.with_name(f".{self._own.name}-{os.getpid()}")
        beside.write_text(json.dumps([max_event_time_ms, more]), encoding="utf-8")
        beside.replace(self._own)

    def allows(self, max_event_time_ms: int | None) -> bool:
        """Whether the own partition, read up to `max_event_time_ms`, may be read further.

        The one furthest behind always may, and one that is read to its end holds nobody back.
        """
        if max_event_time_ms is None:
            return True
        unread = [told for told in self._told() if told is None or told.more]
        known = [told.max_event_time_ms for told in unread if told is not None and told.max_event_time_ms is not None]
        if len(known) < len(unread) and self._clock.monotonic_s() < self._patient_until_s:
            return False
        return not known or max_event_time_ms <= min(known) + self._lead_ms

    def others_have_more(self) -> bool:
        """Whether some other partition has something that can be read now, as far as is known."""
        return any(told is not None and told.more for told in self._told())

    def _told(self) -> Iterator[_Told | None]:
        """Of each other partition; None where nothing was told since."""
        for path in self._others:
            try:
                fresh = path.stat().st_mtime_ns >= self._since_ns
                yield _Told(*json.loads(path.read_text(encoding="utf-8"))) if fresh else None
            except (OSError, ValueError):
                yield None


def _path(folder: Path, at: tuple[EventKind, int]) -> Path:
    return folder / f"{at[0]}-{at[1]}"
