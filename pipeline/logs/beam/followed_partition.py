"""The source on Flink: a stateful DoFn that follows one topic-partition in turns and emits source blocks.

The unread range is one cell of Beam's state; a timer that sets itself begins every turn. A splittable DoFn would do the
same, but runners before Beam 2.76 leave an object in the heap and in every checkpoint with each of its turns, and Flink
would place it on a subtask at random.

A turn is bounded in time and bytes. Its output reaches the next step when it ends, so it ends once it has caught up. A
partition is read no further ahead of the others than the shortest attribution window. An idle partition emits an empty
block at first and every few seconds: from it a reopened shard detects what it lacks, and an idle shard stores its
state. A block states whether its partition has more to read, because that limits what the join may decide.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from pipeline.configuration.project import Project
from pipeline.logs.beam.alignment import EventTimeAlignment
from pipeline.logs.beam.partition_range import BLOCK_BYTES, BLOCK_RECORDS, PartitionRange, check_log_id, read_next
from pipeline.logs.beam.source_block import SourceBlock, Transport
from pipeline.logs.beam.worker import LogHandle
from pipeline.logs.events.codec import DecodedRun, EventCodec
from pipeline.logs.interface.checks import check_partitions_read
from pipeline.logs.interface.log import Log

_TURN_S = 0.5
_TURN_BYTES = 16 << 20
_POLL_MS = 200
_BLOCKED_WAIT_S = 0.02
_EMPTY_BLOCK_EVERY_S = 5.0


class FollowPartition(beam.DoFn):  # type: ignore[misc]
    """(key, PartitionRange, open) → its source blocks, without an end.

    Raises OffsetError if an offset was trimmed or lost, LogReplacedError if the topic was created again, LogError if
    the topic has more partitions than the job reads.
    """

    UNREAD = ReadModifyWriteStateSpec("unread", PickleCoder())
    TURN = TimerSpec("turn", TimeDomain.REAL_TIME)

    def __init__(self, handle: LogHandle, transport: Transport) -> None:
        self._handle, self._transport = handle, transport

    def setup(self) -> None:
        self._readers: dict[tuple[str, int], _Reader] = {}

    def process(
        self,
        element: tuple[int, PartitionRange],
        unread: Any = beam.DoFn.StateParam(UNREAD),  # noqa: B008 - Beam's way
        turn: Any = beam.DoFn.TimerParam(TURN),  # noqa: B008
    ) -> None:
        unread.write(element[1])
        turn.set(Timestamp.now())

    @on_timer(TURN)  # type: ignore[misc]
    def read(
        self,
        unread: Any = beam.DoFn.StateParam(UNREAD),  # noqa: B008
        turn: Any = beam.DoFn.TimerParam(TURN),  # noqa: B008
    ) -> Iterator[bytes]:
        before: PartitionRange = unread.read()
        rest = before
        for block, behind in self._reader(rest).turn(rest):
            rest = behind
            yield self._transport.pack(block)
        # Beam measures the size of a state that is written by a walk over the globals of all modules.
        if rest != before:
            unread.write(rest)
        turn.set(Timestamp.now())

    def _reader(self, of: PartitionRange) -> "_Reader":
        if (of.topic, of.partition) not in self._readers:
            worker = self._handle.worker()
            self._readers[of.topic, of.partition] = _Reader(worker.project, worker.log, of)
        return self._readers[of.topic, of.partition]


class _Reader:
    """Reads one partition over many turns; the caller stores the unread range. Not thread-safe."""

    def __init__(self, project: Project, log: Log, of: PartitionRange) -> None:
        self._clock, self._log = project.clock, log
        config = project.config
        self._codec = EventCodec.of(project, of.kind, log)
        inputs = [(kind, p) for kind in config.input_topics for p in range(config.logs.partitions)]
        window_ms = round(min(feedback.window_s for feedback in config.feedbacks) * 1000)
        own = (of.kind, of.partition)
        self._alignment = EventTimeAlignment(project.alignment, own, inputs, window_ms, project.clock)
        # The partitions of one subtask wait for records one after the other.
        self._poll_ms = max(10, _POLL_MS // math.ceil(len(inputs) / config.flink.parallelism))
        self._emitted_at_s = self._clock.monotonic_s() - _EMPTY_BLOCK_EVERY_S
        self._more_emitted = False

    def turn(self, unread: PartitionRange) -> Iterator[tuple[SourceBlock, PartitionRange]]:
        """Blocks from the start of `unread` on, each with the range that remains after it."""
        self._check_topic(unread)
        ends_s, room_bytes, more = self._clock.monotonic_s() + _TURN_S, _TURN_BYTES, True
        while more and room_bytes > 0 and self._clock.monotonic_s() < ends_s and self._may_read(unread):
            decoded, size = read_next(self._log, self._codec, unread, self._wait_ms())
            # A small read emptied the partition; waiting for more would delay what was read.
            more = size.records >= BLOCK_RECORDS // 4 or size.value_bytes >= BLOCK_BYTES // 4
            emitted = decoded or (self._empty_block(unread) if self._idle() or self._more_emitted else None)
            if emitted:
                block = SourceBlock.of(unread.start, emitted, more=more)
                unread = replace(unread, start=emitted.block.next_offset, max_event_time_ms=emitted.max_event_time_ms)
                self._emitted_at_s, self._more_emitted = self._clock.monotonic_s(), more
                yield block, unread
            room_bytes -= size.value_bytes
        self._alignment.publish(unread.max_event_time_ms, more=more)

    def _check_topic(self, unread: PartitionRange) -> None:
        check_log_id(self._log, unread.topic, unread.log_id)
        # One reader checks for all partitions of the topic.
        if unread.partition == 0:
            check_partitions_read(self._log, unread.topic, unread.partitions)

    def _wait_ms(self) -> int:
        return 0 if self._alignment.others_have_more() else self._poll_ms

    def _may_read(self, unread: PartitionRange) -> bool:
        if self._alignment.allows_reading(unread.max_event_time_ms):
            return True
        # A short wait: this thread may have to read the partition that is behind.
        self._clock.wait(_BLOCKED_WAIT_S)
        return False

    def _empty_block(self, unread: PartitionRange) -> DecodedRun:
        return self._codec.empty_run(unread.topic, unread.partition, unread.max_event_time_ms, unread.start)

    def _idle(self) -> bool:
        return self._clock.monotonic_s() - self._emitted_at_s >= _EMPTY_BLOCK_EVERY_S
