"""Beam's way into a log: a splittable DoFn that reads one topic-partition per element and emits blocks.

One code path for a closed range and an open one. A restriction carries the partition's mark beside its offsets, for
lateness depends on it: so a range is only ever split where reading has come to, never ahead. `process` is bounded in
time, records and bytes; it never decides where to start, and refuses a log that is not the one its offsets belong to.
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
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.transforms.core import RestrictionProvider

from pipeline.ground.block import Kind
from pipeline.ground.errors import FreshetError, LogReplacedError
from pipeline.ground.project import Project
from pipeline.logs.events import Decoded, EventCodec
from pipeline.logs.log import Log, ReadLimits
from pipeline.logs.open import open_log
from pipeline.logs.record_run import RunLog

DEAD = "dead"
"""Tag of the output that carries dead letters."""

BLOCK_RECORDS = 4_096
BLOCK_BYTES = 256 << 10
"""At the first of them one block ends."""
RUN_RECORDS, RUN_BYTES = 16_384, 1 << 20
"""The same for a log that reads runs: there a record costs next to nothing, and what a block costs weighs."""

_PROCESS_S = 0.5
_PROCESS_BYTES = 64 << 20
_POLL_MS = 200


@dataclass(frozen=True)
class PartitionRange:
    """What to read of one partition.

    Attributes:
        topic, kind, partition: where.
        start: first offset.
        stop: the offset to stop before; None follows the log.
        mark_ms: the partition's largest event time before `start`; None where there was none.
        log_id: the log that the offsets belong to.
        beside: how many partitions of the topic are read, this one among them.
    """

    topic: str
    kind: Kind
    partition: int
    start: int
    stop: int | None
    mark_ms: int | None
    log_id: str
    beside: int


@dataclass(frozen=True)
class LogDoor:
    """How a worker comes to the log: one lent by this process, or else the project's own. Can be pickled.

    Attributes:
        root: the project's folder.
        loan: number of the loan; 0 for a door that nothing was lent for.
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
        except FreshetError as failure:
            _failed.setdefault(self, failure)
            raise

    def failure(self) -> FreshetError | None:
        """The first error that a worker of this process reported."""
        return _failed.get(self)


_opening = threading.Lock()
_lent: dict[LogDoor, tuple[Project, Log]] = {}
_failed: dict[LogDoor, FreshetError] = {}
_loans = itertools.count(1)


def lend(project: Project, log: Log) -> LogDoor:
    """A door to a log that is open in this process; give it back with `take_back`."""
    door = LogDoor(str(project.root), next(_loans))
    _lent[door] = (project, log)
    return door


def take_back(door: LogDoor) -> None:
    """The door no longer leads to the lent log."""
    _lent.pop(door, None)
    _failed.pop(door, None)


@dataclass(frozen=True)
class ReadRange:
    """A restriction: offsets still to be read, and the mark before the first of them."""

    start: int
    stop: int | None
    mark_ms: int | None


class ReadTracker(RestrictionTracker):  # type: ignore[misc]
    """Claims runs of records; a position is (next offset, mark there)."""

    def __init__(self, restriction: ReadRange) -> None:
        self._range = restriction
        self._next, self._mark_ms = restriction.start, restriction.mark_ms
        self._checkpointed = False

    def current_restriction(self) -> ReadRange:
        return self._range

    def try_claim(self, position: tuple[int, int | None]) -> bool:
        if self._checkpointed:
            return False
        self._next, self._mark_ms = position
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[ReadRange, ReadRange] | None:
        """Split at what has been read. Further on the mark is unknown, so a split there is declined."""
        if fraction_of_remainder != 0 or self._checkpointed or self._next == self._range.stop:
            return None
        rest = ReadRange(self._next, self._range.stop, self._mark_ms)
        self._range = replace(self._range, stop=self._next)
        self._checkpointed = True
        return self._range, rest

    def check_done(self) -> None:
        if self._next != self._range.stop:
            raise ValueError(f"range {self._range} was left at {self._next}")

    def current_progress(self) -> RestrictionProgress:
        stop = self._next + 1 if self._range.stop is None else self._range.stop
        return RestrictionProgress(completed=self._next - self._range.start, remaining=stop - self._next)

    def is_bounded(self) -> bool:
        return self._range.stop is not None


class Restrictions(RestrictionProvider):  # type: ignore[misc]
    """PartitionRange → what of it is still to be read."""

    def initial_restriction(self, element: PartitionRange) -> ReadRange:
        return ReadRange(element.start, element.stop, element.mark_ms)

    def create_tracker(self, restriction: ReadRange) -> ReadTracker:
        return ReadTracker(restriction)

    def restriction_size(self, element: PartitionRange, restriction: ReadRange) -> int:
        return BLOCK_RECORDS if restriction.stop is None else max(0, restriction.stop - restriction.start)


class PartitionSource(beam.DoFn):  # type: ignore[misc]
    """PartitionRange → EventBlock; under `DEAD`, (partition, DeadLetters pickled).

    Blocks are bytes, or with `packed` false themselves: for a next step that Beam runs in the same call.
    Raises OffsetError where an offset is gone, LogReplacedError where the topic was made again.
    """

    def __init__(self, door: LogDoor, *, packed: bool = True) -> None:
        self._door, self._packed = door, packed

    def process(
        self,
        element: PartitionRange,
        tracker: Any = beam.DoFn.RestrictionParam(Restrictions()),  # noqa: B008 - how Beam declares a parameter
    ) -> Iterator[Any]:
        with self._door.reporting():
            yield from self._read(element, tracker)

    def _read(self, element: PartitionRange, tracker: Any) -> Iterator[Any]:
        project, log = self._door.open()
        check_log_id(log, element.topic, element.log_id)
        codec = EventCodec(project.config.events, element.kind, log)
        left = tracker.current_restriction()
        ends_s, read_bytes = project.clock.monotonic_s() + _PROCESS_S, 0
        while left.stop is None or left.start < left.stop:
            decoded, read = decode_next(log, codec, element, left)
            if decoded is None:
                # Offsets may have gaps, so a closed range may end without a record.
                if left.stop is None or log.end_offset(element.topic, element.partition) < left.stop:
                    tracker.defer_remainder()
                else:
                    tracker.try_claim((left.stop, left.mark_ms))
                return
            left = ReadRange(decoded.block.next_offset, left.stop, decoded.mark_ms)
            if not tracker.try_claim((left.start, left.mark_ms)):
                return
            yield decoded.block.to_bytes() if self._packed else decoded.block
            if decoded.dead.table.num_rows:
                yield beam.pvalue.TaggedOutput(DEAD, (element.partition, pickle.dumps(decoded.dead, protocol=5)))
            read_bytes += read.value_bytes
            if left.start != left.stop and (read_bytes > _PROCESS_BYTES or project.clock.monotonic_s() > ends_s):
                tracker.defer_remainder()
                return


class Amount(NamedTuple):
    """How much one read gave."""

    records: int
    value_bytes: int


def decode_next(
    log: Log, codec: EventCodec, element: PartitionRange, left: ReadRange, poll_ms: int = _POLL_MS
) -> tuple[Decoded | None, Amount]:
    """The next records of a range, at most what makes one block, decoded; None where none are.

    An open range is waited for, `poll_ms` at most.
    """
    topic, partition, stop = element.topic, element.partition, left.stop
    records, max_bytes = (RUN_RECORDS, RUN_BYTES) if isinstance(log, RunLog) else (BLOCK_RECORDS, BLOCK_BYTES)
    most = records if stop is None else min(records, stop - left.start)
    limits = ReadLimits(most, max_bytes, poll_ms if stop is None else 0)
    if isinstance(log, RunLog):
        run = log.read_run(topic, partition, left.start, limits)
        if stop is not None:
            run = run.before(stop)
        decoded = codec.decode_run(run, topic, partition, left.mark_ms) if len(run) else None
        return decoded, Amount(len(run), run.value_bytes)
    found = log.read(topic, partition, left.start, limits)
    found = [r for r in found if stop is None or r.offset < stop]
    decoded = codec.decode(found, topic, partition, left.mark_ms) if found else None
    return decoded, Amount(len(found), sum(len(r.value) for r in found))


def check_log_id(log: Log, topic: str, log_id: str) -> None:
    """Raise LogReplacedError where `topic` is not the log that offsets were taken from."""
    found = log.log_id(topic)
    if found != log_id:
        raise LogReplacedError(
            f"topic {topic} was deleted and made again: its log is {found}, the offsets kept are of {log_id}. "
            "hint: restore the topic, or begin with a new state folder and new topics"
        )
