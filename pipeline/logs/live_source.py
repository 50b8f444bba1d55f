"""Beam's way into a log that is followed: a splittable DoFn that reads one topic-partition in turns and emits spans.

A turn is bounded in time and bytes. What it emits reaches the next step when it ends, so it ends once it has caught up.
A partition is read no further ahead of the others than the attribution window. At first and now and then an idle one
emits a span of nothing: by it a shard that was opened anew sees what it lacks, and one that stands still finds time to
keep its state.
"""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from pipeline.ground.project import Project
from pipeline.logs.events import Decoded, EventCodec
from pipeline.logs.lead import Lead
from pipeline.logs.log import Log, check_partitions
from pipeline.logs.source import (
    BLOCK_BYTES,
    BLOCK_RECORDS,
    LogDoor,
    PartitionRange,
    ReadRange,
    Restrictions,
    check_log_id,
    decode_next,
)
from pipeline.logs.span import Span

_TURN_S = 0.5
_TURN_BYTES = 16 << 20
_POLL_MS = 200
_HELD_BACK_S = 0.02
_IDLE_SPAN_S = 5.0


class SpanSource(beam.DoFn):  # type: ignore[misc]
    """PartitionRange, open → Span as bytes.

    Raises OffsetError where an offset is gone, LogReplacedError where the topic was made again, LogError where it has
    more partitions by now than are read.
    """

    def __init__(self, door: LogDoor) -> None:
        self._door = door

    def setup(self) -> None:
        self._readers: dict[PartitionRange, _Reader] = {}

    def process(
        self,
        element: PartitionRange,
        tracker: Any = beam.DoFn.RestrictionParam(Restrictions()),  # noqa: B008 - how Beam declares a parameter
    ) -> Iterator[bytes]:
        if element not in self._readers:
            self._readers[element] = _Reader(*self._door.open(), element)
        yield from self._readers[element].turn(tracker)


class _Reader:
    """One partition over many turns. Not thread-safe."""

    def __init__(self, project: Project, log: Log, element: PartitionRange) -> None:
        self._clock, self._log, self._element = project.clock, log, element
        config = project.config
        self._codec = EventCodec(config.events, element.kind, log)
        self._lead = Lead(project.lead, round(config.samples.window_s * 1000))
        # The partitions of one worker wait for records one after the other.
        self._poll_ms = max(10, _POLL_MS // (2 * config.logs.partitions))
        self._emitted_at_s = self._clock.monotonic_s() - _IDLE_SPAN_S
        # At first one block alone: what waits in the others is not told yet, and nothing would hold this one back.
        self._turn_bytes = 1

    def turn(self, tracker: Any) -> Iterator[bytes]:
        self._check_topic()
        left: ReadRange = tracker.current_restriction()
        ends_s, room_bytes, more = self._clock.monotonic_s() + _TURN_S, self._turn_bytes, True
        while more and room_bytes > 0 and self._clock.monotonic_s() < ends_s and self._may_read(left):
            decoded, read = decode_next(self._log, self._codec, self._element, left, self._patience_ms())
            span, left = self._span(left, decoded)
            if not tracker.try_claim((left.start, left.mark_ms)):
                return
            if decoded or self._silent():
                self._emitted_at_s = self._clock.monotonic_s()
                yield span.to_bytes()
            room_bytes -= read.value_bytes
            # A small run was all there was; waiting for the next would hold this one back.
            more = read.records >= BLOCK_RECORDS // 4 or read.value_bytes >= BLOCK_BYTES // 4
        self._turn_bytes = _TURN_BYTES
        self._lead.tell(self._element.kind, self._element.partition, left.mark_ms, more=more)
        tracker.defer_remainder()

    def _check_topic(self) -> None:
        element = self._element
        check_log_id(self._log, element.topic, element.log_id)
        # One reader looks for all of the topic's.
        if element.partition == 0:
            check_partitions(self._log, element.topic, element.beside)

    def _patience_ms(self) -> int:
        busy = self._lead.others_have_more(self._element.kind, self._element.partition)
        return 0 if busy else self._poll_ms

    def _may_read(self, left: ReadRange) -> bool:
        if self._lead.allows(self._element.kind, self._element.partition, left.mark_ms):
            return True
        # Not for long: the partition that is waited for may be read by this very thread.
        self._clock.wait(_HELD_BACK_S)
        return False

    def _span(self, left: ReadRange, decoded: Decoded | None) -> tuple[Span, ReadRange]:
        if decoded is None:
            decoded = self._codec.nothing(self._element.topic, self._element.partition, left.mark_ms, left.start)
        return Span.of(left.start, decoded), ReadRange(decoded.block.next_offset, None, decoded.mark_ms)

    def _silent(self) -> bool:
        return self._clock.monotonic_s() - self._emitted_at_s >= _IDLE_SPAN_S
