"""Beam's way into a log: a DoFn that reads a closed range of one topic-partition and emits blocks.

What an open one needs too (`live_source`) is here as well: how a worker comes to the log, and what one read is. A range
carries the partition's mark beside its offsets, for lateness depends on it. A source never decides where to start, and
refuses a log that is not the one its offsets belong to.
"""

import itertools
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam

from pipeline.arrays.block import EventKind
from pipeline.configuration.project import Project
from pipeline.errors import LogReplacedError, OffsetError, SpringtideError
from pipeline.logs.events.codec import DecodedRun, EventCodec
from pipeline.logs.log import Log, ReadLimits
from pipeline.logs.open import open_log
from pipeline.logs.record_run import SupportsReadRun

DEAD = "dead"
"""Tag of the output that carries dead letters."""

BLOCK_RECORDS = 4_096
BLOCK_BYTES = 256 << 10
"""At the first of them one block ends."""
RUN_RECORDS, RUN_BYTES = 16_384, 1 << 20
"""The same for a log that reads runs: there a record costs next to nothing, and what a block costs weighs."""


@dataclass(frozen=True)
class PartitionRange:
    """What to read of one partition.

    Attributes:
        topic, kind, partition: where.
        start: first offset.
        stop: the offset to stop before; None follows the log.
        max_event_time_ms: the partition's largest event time before `start`; None where there was none.
        log_id: the log that the offsets belong to.
        beside: how many partitions of the topic are read, this one among them.
    """

    topic: str
    kind: EventKind
    partition: int
    start: int
    stop: int | None
    max_event_time_ms: int | None
    log_id: str
    beside: int


@dataclass(frozen=True)
class LogHandle:
    """How a worker comes to the log: one lent by this process, or else the project's own. Can be pickled.

    Attributes:
        root: the project's folder.
        loan: number of the loan; 0 for a handle that nothing was lent for.
    """

    root: str
    loan: int = 0

    def open(self) -> tuple[Project, Log]:
        """The project and its log, opened once in a process."""
        with _opening:
            if self not in _lent:
                project = Project.open(Path(self.root))
                _lent[self] = (project, open_log(project))
            return _lent[self]

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Keep the error that ends this block: Beam hands the caller its text alone."""
        try:
            yield
        except SpringtideError as failure:
            _failed.setdefault(self, failure)
            raise

    def failure(self) -> SpringtideError | None:
        """The first error that a worker of this process reported."""
        return _failed.get(self)


_opening = threading.Lock()
_lent: dict[LogHandle, tuple[Project, Log]] = {}
_failed: dict[LogHandle, SpringtideError] = {}
_loans = itertools.count(1)


def lend(project: Project, log: Log) -> LogHandle:
    """A handle to a log that is open in this process; give it back with `take_back`."""
    handle = LogHandle(str(project.root), next(_loans))
    _lent[handle] = (project, log)
    return handle


def take_back(handle: LogHandle) -> None:
    """The handle no longer leads to the lent log."""
    _lent.pop(handle, None)
    _failed.pop(handle, None)


class PartitionSource(beam.DoFn):  # type: ignore[misc]
    """PartitionRange, closed → EventBlock; under `DEAD`, (partition, DeadLetters pickled).

    Blocks are not packed: the next step is one that Beam runs in the same call.
    Raises OffsetError where an offset is gone, LogReplacedError where the topic was made again.
    """

    def __init__(self, handle: LogHandle) -> None:
        self._handle = handle

    def process(self, element: PartitionRange) -> Iterator[Any]:
        with self._handle.reporting():
            yield from self._read(element)

    def _read(self, left: PartitionRange) -> Iterator[Any]:
        project, log = self._handle.open()
        check_log_id(log, left.topic, left.log_id)
        codec = EventCodec(project.config.events, left.kind, log)
        while decoded := decode_next(log, codec, left)[0]:
            left = replace(left, start=decoded.block.next_offset, max_event_time_ms=decoded.max_event_time_ms)
            yield decoded.block
            if decoded.dead.table.num_rows:
                yield beam.pvalue.TaggedOutput(DEAD, (left.partition, pickle.dumps(decoded.dead, protocol=5)))
        # Offsets may have gaps, so a range may end without a record.
        if left.stop is not None and (end := log.end_offset(left.topic, left.partition)) < left.stop:
            raise OffsetError(
                f"{left.topic}/{left.partition} ends at offset {end}, it was to be read up to {left.stop}: "
                "it has lost records. hint: bring its broker's data back, or begin anew with a new state folder"
            )


class Amount(NamedTuple):
    """How much one read gave."""

    records: int
    value_bytes: int


def decode_next(
    log: Log, codec: EventCodec, left: PartitionRange, poll_ms: int = 0
) -> tuple[DecodedRun | None, Amount]:
    """The next records of a range, at most what makes one block, decoded; None where none are.

    What is not there yet is waited for, `poll_ms` at most.
    """
    topic, partition, stop = left.topic, left.partition, left.stop
    if left.start == stop:
        return None, Amount(0, 0)
    records, max_bytes = (RUN_RECORDS, RUN_BYTES) if isinstance(log, SupportsReadRun) else (BLOCK_RECORDS, BLOCK_BYTES)
    most = records if stop is None else min(records, stop - left.start)
    limits = ReadLimits(most, max_bytes, poll_ms)
    if isinstance(log, SupportsReadRun):
        run = log.read_run(topic, partition, left.start, limits)
        if stop is not None:
            run = run.before(stop)
        decoded = codec.decode_run(run, topic, partition, left.max_event_time_ms) if len(run) else None
        return decoded, Amount(len(run), run.value_bytes)
    found = log.read(topic, partition, left.start, limits)
    found = [r for r in found if stop is None or r.offset < stop]
    decoded = codec.decode(found, topic, partition, left.max_event_time_ms) if found else None
    return decoded, Amount(len(found), sum(len(r.value) for r in found))


def check_log_id(log: Log, topic: str, log_id: str) -> None:
    """Raise LogReplacedError where `topic` is not the log that offsets were taken from."""
    found = log.log_id(topic)
    if found != log_id:
        raise LogReplacedError(
            f"topic {topic} was deleted and made again: its log is {found}, the offsets kept are of {log_id}. "
            "hint: restore the topic, or begin with a new state folder and new topics"
        )
