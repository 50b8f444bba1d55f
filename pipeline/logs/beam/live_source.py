"""Beam's way into a log that is followed: a stateful DoFn that reads one topic-partition in turns and emits spans.

What is left of the partition is one cell of Beam's state, and a timer that sets itself begins every turn. A splittable
DoFn would do the same, but runners before Beam 2.76 leave something in the heap and in every checkpoint with each of
its turns, and it would land on a subtask by chance.

A turn is bounded in time and bytes. What it emits reaches the next step when it ends, so it ends once it has caught up.
A partition is read no further ahead of the others than the attribution window. At first and now and then an idle one
emits a span of nothing: by it a shard that was opened anew sees what it lacks, and one that stands still finds time to
keep its state.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from pipeline.arrays.block import EventKind
from pipeline.configuration.project import Project
from pipeline.logs.beam.alignment import Lead
from pipeline.logs.beam.record_span import Span
from pipeline.logs.beam.source import BLOCK_BYTES, BLOCK_RECORDS, LogHandle, PartitionRange, check_log_id, decode_next
from pipeline.logs.checks import check_partitions_read
from pipeline.logs.events.codec import DecodedRun, EventCodec
from pipeline.logs.log import Log

_TURN_S = 0.5
_TURN_BYTES = 16 << 20
_POLL_MS = 200
_HELD_BACK_S = 0.02
_IDLE_SPAN_S = 5.0


class SpanSource(beam.DoFn):  # type: ignore[misc]
    """(key, PartitionRange, open) → Span as bytes, without an end.

    Raises OffsetError where an offset is gone, LogReplacedError where the topic was made again, LogError where it has
    more partitions by now than are read.
    """

    LEFT = ReadModifyWriteStateSpec("left", PickleCoder())
    TURN = TimerSpec("turn", TimeDomain.REAL_TIME)

    def __init__(self, handle: LogHandle) -> None:
        self._handle = handle

    def setup(self) -> None:
        self._readers: dict[tuple[str, int], _Reader] = {}

    def process(
        self,
        element: tuple[int, PartitionRange],
        left: Any = beam.DoFn.StateParam(LEFT),  # noqa: B008 - Beam's way
        turn: Any = beam.DoFn.TimerParam(TURN),  # noqa: B008
    ) -> None:
        left.write(element[1])
        turn.set(Timestamp.now())

    @on_timer(TURN)  # type: ignore[misc]
    def read(
        self,
        left: Any = beam.DoFn.StateParam(LEFT),  # noqa: B008
        turn: Any = beam.DoFn.TimerParam(TURN),  # noqa: B008
    ) -> Iterator[bytes]:
        rest: PartitionRange = left.read()
        for span, behind in self._reader(rest).turn(rest):
            rest = behind
            yield span.to_bytes()
        left.write(rest)
        turn.set(Timestamp.now())

    def _reader(self, of: PartitionRange) -> "_Reader":
        if (of.topic, of.partition) not in self._readers:
            self._readers[of.topic, of.partition] = _Reader(*self._handle.open(), of)
        return self._readers[of.topic, of.partition]


class _Reader:
    """One partition over many turns; where it stands is the caller's. Not thread-safe."""

    def __init__(self, project: Project, log: Log, of: PartitionRange) -> None:
        self._clock, self._log = project.clock, log
        config = project.config
        self._codec = EventCodec(config.events, of.kind, log)
        inputs = [(kind, p) for kind in get_args(EventKind) for p in range(config.logs.partitions)]
        window_ms = round(config.samples.window_s * 1000)
        self._lead = Lead(project.alignment, (of.kind, of.partition), inputs, window_ms, project.clock)
        # The partitions of one worker wait for records one after the other.
        self._poll_ms = max(10, _POLL_MS // (2 * config.logs.partitions))
        self._emitted_at_s = self._clock.monotonic_s() - _IDLE_SPAN_S

    def turn(self, left: PartitionRange) -> Iterator[tuple[Span, PartitionRange]]:
        """Spans from where `left` begins, each with what is left behind it."""
        self._check_topic(left)
        ends_s, room_bytes, more = self._clock.monotonic_s() + _TURN_S, _TURN_BYTES, True
        while more and room_bytes > 0 and self._clock.monotonic_s() < ends_s and self._may_read(left):
            decoded, read = decode_next(self._log, self._codec, left, self._patience_ms())
            emitted = decoded or (self._nothing(left) if self._silent() else None)
            if emitted:
                span = Span.of(left.start, emitted)
                left = replace(left, start=emitted.block.next_offset, max_event_time_ms=emitted.max_event_time_ms)
                self._emitted_at_s = self._clock.monotonic_s()
                yield span, left
            room_bytes -= read.value_bytes
            # A small run was all there was; waiting for the next would hold this one back.
            more = read.records >= BLOCK_RECORDS // 4 or read.value_bytes >= BLOCK_BYTES // 4
        self._lead.tell(left.max_event_time_ms, more=more)

    def _check_topic(self, left: PartitionRange) -> None:
        check_log_id(self._log, left.topic, left.log_id)
        # One reader looks for all of the topic's.
        if left.partition == 0:
            check_partitions_read(self._log, left.topic, left.beside)

    def _patience_ms(self) -> int:
        return 0 if self._lead.others_have_more() else self._poll_ms

    def _may_read(self, left: PartitionRange) -> bool:
        if self._lead.allows(left.max_event_time_ms):
            return True
        # Not for long: the partition that is waited for may be read by this very thread.
        self._clock.wait(_HELD_BACK_S)
        return False

    def _nothing(self, left: PartitionRange) -> DecodedRun:
        return self._codec.empty_run(left.topic, left.partition, left.max_event_time_ms, left.start)

    def _silent(self) -> bool:
        return self._clock.monotonic_s() - self._emitted_at_s >= _IDLE_SPAN_S
