"""The samples job: a Beam pipeline that runs once a round, from partitions of both inputs to the shards that join them.

    round → ranges → read (blocks) → split by shard → group by shard → join, append

Keys are shards and elements stand for blocks, which are handed over in this process. The pipeline is put together once
per job, for that takes longer than many a round; what a round reads, its first step asks for. Decides nothing: the join
does.
"""

import pickle
import threading
from collections.abc import Callable, Iterable, Iterator

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipeline.arrays.block import EventBlock
from pipeline.arrays.keys import shard_of
from pipeline.configuration.project import Project
from pipeline.errors import SpringtideError
from pipeline.logs.beam.source import DEAD, LogHandle, PartitionRange, PartitionSource, lend, take_back
from pipeline.logs.events.codec import NO_WATERMARK
from pipeline.logs.log import Log
from pipeline.samples.join.emitted import INPUTS
from pipeline.samples.run.rounds import Rounds, SamplesReport
from pipeline.samples.run.shard import Element
from pipeline.telemetry import metrics, readers
from pipeline.telemetry.registry import timed

_IDLE_WAIT_S = 0.05

Progress = Callable[[int, int], None]

_open: dict[int, Rounds] = {}
"""The shards that workers of this process find, by the loan of their log."""


class PlannedRanges(beam.DoFn):  # type: ignore[misc]
    """Anything → the ranges of the round under way."""

    def __init__(self, handle: LogHandle) -> None:
        self._handle = handle

    def process(self, element: bytes) -> list[PartitionRange]:
        return _open[self._handle.loan].planned


class SplitByShard(beam.DoFn):  # type: ignore[misc]
    """A block → (shard, element) for every shard: its rows, and for all of them offset and watermark."""

    def __init__(self, handle: LogHandle, columns: tuple[str, ...], shards: int) -> None:
        self._handle, self._columns, self._shards = handle, columns, shards

    def process(self, block: EventBlock) -> Iterator[tuple[int, Element]]:
        where = (block.watermark_ms, INPUTS.index(block.kind), block.partition, block.next_offset)
        handover = _open[self._handle.loan].handover
        if self._shards == 1:
            yield 0, (*where, handover.leave(block))
            return
        of = shard_of(block.columns, self._columns, self._shards)
        for shard in range(self._shards):
            yield shard, (*where, handover.leave(block.take(np.flatnonzero(of == shard))))


class SetAside(beam.DoFn):  # type: ignore[misc]
    """(partition, DeadLetters pickled) → (shard, element): they sort before all blocks."""

    def __init__(self, handle: LogHandle, shards: int) -> None:
        self._handle, self._shards = handle, shards

    def process(self, element: tuple[int, bytes]) -> Iterator[tuple[int, Element]]:
        partition, letters = element
        ticket = _open[self._handle.loan].handover.leave(pickle.loads(letters))
        yield partition % self._shards, (NO_WATERMARK - 1, 0, partition, 0, ticket)


class JoinShards(beam.DoFn):  # type: ignore[misc]
    """(shard, its elements) → nothing; what is decided goes to the shard's own partitions."""

    def __init__(self, handle: LogHandle) -> None:
        self._handle = handle

    def process(self, element: tuple[int, Iterable[Element]]) -> None:
        shard, elements = element
        with self._handle.reporting():
            rounds = _open[self._handle.loan]
            rounds.shards[shard].take(elements, rounds.handover)


class SamplesJob:
    """One run of the join: the shards it holds open, and the Beam rounds that move them on. One caller at a time."""

    def __init__(self, project: Project, log: Log, *, stop: threading.Event | None = None) -> None:
        """Take the fences and load the state.

        Raises:
            LogReplacedError, OffsetError: the input is not what the state is of.
            DamagedError: a state file.
        """
        self.project, self.stop = project, stop or threading.Event()
        self._rounds = Rounds(project, log)
        self._handle = lend(project, log)
        _open[self._handle.loan] = self._rounds
        self._pipeline = build(self._handle, project)
        readers.register("samples", self._rounds.readings)

    def catch_up(self, progress: Progress | None = None) -> int:
        """Join what the logs hold now, or until `stop`; returns how many records were read.

        Args:
            progress: called after each round with (records read, records known to be there).

        Raises:
            FencedError: another process joins.
        """
        ends, read = self._rounds.ends(), 0
        while not self.stop.is_set() and (ranges := self._rounds.plan(ends)):
            with timed(metrics.ROUND_SECONDS, self.project.clock):
                self._run_round()
                self._rounds.finish(ranges)
            read += sum((r.stop or r.start) - r.start for r in ranges)
            if progress is not None:
                progress(read, read + self._rounds.left(ends))
        return read

    def _run_round(self) -> None:
        try:
            self._pipeline.run().wait_until_finish()
        except Exception:
            failure: SpringtideError | None = self._handle.failure()
            if failure is not None:
                raise failure from None
            raise
        finally:
            self._rounds.handover.clear()

    def report(self) -> SamplesReport:
        """What this run did so far."""
        return self._rounds.report()

    def close(self) -> None:
        """Let the shards go; their state is that of the last round."""
        readers.unregister("samples")
        _open.pop(self._handle.loan, None)
        take_back(self._handle)


def run_samples(
    project: Project,
    log: Log,
    *,
    until_end: bool,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> SamplesReport:
    """Join what the logs hold now, or with `until_end` false follow them until `stop`. Raises as `SamplesJob`."""
    job = SamplesJob(project, log, stop=stop)
    try:
        while True:
            read = job.catch_up(progress)
            if until_end or job.stop.is_set():
                return job.report()
            if not read:
                project.clock.wait(_IDLE_WAIT_S)
    finally:
        job.close()


def build(handle: LogHandle, project: Project) -> beam.Pipeline:
    """The job's steps; each run of them is a round."""
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([]))
    shards = project.config.logs.shards
    read = (
        pipeline
        | "round" >> beam.Impulse()
        | "ranges" >> beam.ParDo(PlannedRanges(handle))
        | "read" >> beam.ParDo(PartitionSource(handle)).with_outputs(DEAD, main="blocks")
    )
    blocks = read.blocks | "split" >> beam.ParDo(SplitByShard(handle, project.config.events.shard_columns, shards))
    dead = read[DEAD] | "set aside" >> beam.ParDo(SetAside(handle, shards))
    parts = (blocks, dead) | "all" >> beam.Flatten() | "by shard" >> beam.GroupByKey()
    _ = parts | "join" >> beam.ParDo(JoinShards(handle))
    return pipeline
