"""The samples job in process: a Beam pipeline that runs once a round, over closed ranges of the input partitions.

Building the pipeline takes longer than many a round, so it is built once; each run reads the ranges planned for it.
"""

import threading
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipeline.configuration.project import Project
from pipeline.logs.beam.closed_range import ReadClosedRange
from pipeline.logs.beam.partition_range import PartitionRange
from pipeline.logs.beam.source_block import ByReference, Transport
from pipeline.logs.beam.worker import LogHandle, register, release
from pipeline.logs.interface.log import Log
from pipeline.samples.run.graph import SHARDS, SamplesGraph
from pipeline.samples.run.rounds import Rounds, SamplesReport
from pipeline.telemetry import metrics, readers
from pipeline.telemetry.registry import timed

_IDLE_WAIT_S = 0.05

Progress = Callable[[int, int], None]


class ReadPlannedRanges(beam.PTransform):  # type: ignore[misc,type-arg]
    """The source: the ranges of the current round."""

    def __init__(self, handle: LogHandle, transport: Transport) -> None:
        super().__init__()
        self._handle, self._transport = handle, transport

    def expand(self, pipeline: beam.Pipeline) -> Any:
        ranges = pipeline | "start" >> beam.Impulse() | "ranges" >> beam.ParDo(_PlannedRanges(self._handle))
        return ranges | "read" >> beam.ParDo(ReadClosedRange(self._handle, self._transport)).with_output_types(bytes)


class _PlannedRanges(beam.DoFn):  # type: ignore[misc]
    """Any element → the ranges of the current round."""

    def __init__(self, handle: LogHandle) -> None:
        self._handle = handle

    def process(self, element: bytes) -> list[PartitionRange]:
        rounds = self._handle.created(SHARDS)
        assert isinstance(rounds, Rounds)
        return rounds.planned


class SamplesJob:
    """One run of the join: its open shards, and the Beam rounds that feed them. One caller at a time."""

    def __init__(self, project: Project, log: Log, *, stop: threading.Event | None = None) -> None:
        """Acquire the fences and load the state.

        Raises:
            LogReplacedError, OffsetError: the state belongs to other input.
            DamagedError: a state file.
        """
        self.project, self.stop = project, stop or threading.Event()
        self._rounds, self._handle = Rounds(project, log), register(project, log)
        self._handle.worker().get(SHARDS, lambda *_: self._rounds)
        self._transport = ByReference(self._handle)
        graph = SamplesGraph(self._handle, self._transport, tuple(range(project.config.logs.shards)), Rounds)
        self._pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([]))
        graph.build(self._pipeline, ReadPlannedRanges(self._handle, self._transport))

    def catch_up(self, progress: Progress | None = None) -> int:
        """Join what the logs hold now, or until `stop`; returns the number of records read.

        Args:
            progress: called after each round with (records read, records known to exist).

        Raises:
            FencedError: another process joins.
        """
        ends, read = self._rounds.ends(), 0
        while not self.stop.is_set() and (ranges := self._rounds.plan(ends)):
            with timed(metrics.ROUND_SECONDS, self.project.clock):
                self._run_round()
                self._rounds.finish(ranges)
            self._rounds.count_progress()
            read += sum((r.stop or r.start) - r.start for r in ranges)
            if progress is not None:
                progress(read, read + self._rounds.unread(ends))
        return read

    def _run_round(self) -> None:
        try:
            self._pipeline.run().wait_until_finish()
        except Exception:
            failure = self._handle.worker().failure
            if failure is not None:
                raise failure from None
            raise
        finally:
            self._transport.references().clear()

    def report(self) -> SamplesReport:
        """Counts of this run so far."""
        return self._rounds.report()

    def close(self) -> None:
        """Close the shards; their state is that of the last round."""
        readers.unregister("samples")
        release(self._handle)


def run_samples(
    project: Project,
    log: Log,
    *,
    until_end: bool,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> SamplesReport:
    """Join what the logs hold now; without `until_end` follow them until `stop` is set. Raises as `SamplesJob`."""
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
