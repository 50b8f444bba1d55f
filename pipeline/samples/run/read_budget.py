"""How much one round reads: no more than fits into memory, and no partition far ahead of the others in event time.

Limits change how much the join holds, never what it emits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.arrays.block import EventKind
from pipeline.configuration.project import Project
from pipeline.logs.beam.alignment import event_time_limit
from pipeline.logs.beam.partition_range import PartitionRange
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.interface.log import Log, ReadLimits, Record
from pipeline.samples.join.progress.input_progress import Input

_ROUND_BYTES = 64 << 20
_SAMPLED_RECORDS = 8


class ReadBudget:
    """Shortens planned ranges. Not thread-safe."""

    def __init__(self, project: Project, log: Log) -> None:
        self._log = log
        kinds = project.config.input_topics
        self._codecs: dict[EventKind, EventCodec] = {kind: EventCodec.of(project, kind, log) for kind in kinds}

    def within(self, ranges: Sequence[PartitionRange], ends: Mapping[Input, int]) -> list[PartitionRange]:
        """The ranges, shortened so that all stop at about the same event time; each keeps at least one offset.

        A partition that is read to its end, given by `ends`, limits no other.
        """
        fitting = [self._within_memory(r, _ROUND_BYTES // len(ranges)) for r in ranges]
        last_ms = [self._time_before(r, _stop(r)) for r in fitting]
        unfinished = [t for r, t in zip(fitting, last_ms, strict=True) if _stop(r) < ends[r.kind, r.partition]]
        limit_ms = event_time_limit(unfinished, lead_ms=0)
        if limit_ms is None:
            return fitting
        return [
            r if t is None or t <= limit_ms else self._until(r, limit_ms) for r, t in zip(fitting, last_ms, strict=True)
        ]

    def _within_memory(self, planned: PartitionRange, most_bytes: int) -> PartitionRange:
        first = self._read(planned, planned.start, _SAMPLED_RECORDS)
        mean_bytes = max(1, sum(len(r.value) for r in first) // max(1, len(first)))
        return replace(planned, stop=min(_stop(planned), planned.start + max(1, most_bytes // mean_bytes)))

    def _until(self, planned: PartitionRange, limit_ms: int) -> PartitionRange:
        """By bisection: times rise along a partition, except for its disorder."""
        low, high = planned.start + 1, _stop(planned)
        while low < high:
            middle = (low + high) // 2
            at_ms = self._time_before(planned, middle + 1)
            low, high = (low, middle) if at_ms is not None and at_ms > limit_ms else (middle + 1, high)
        return replace(planned, stop=low)

    def _time_before(self, planned: PartitionRange, offset: int) -> int | None:
        """The max event time in the record below `offset`; None if it has no event."""
        records = self._read(planned, offset - 1, 1)
        if not records:
            return None
        return self._codecs[planned.kind].decode(records, planned.topic, planned.partition, None).max_event_time_ms

    def _read(self, planned: PartitionRange, offset: int, records: int) -> list[Record]:
        return self._log.read(planned.topic, planned.partition, offset, ReadLimits(records=records))


def _stop(planned: PartitionRange) -> int:
    assert planned.stop is not None, "rounds read closed ranges"
    return planned.stop
