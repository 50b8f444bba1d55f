"""The train job: a Beam stage that drives the shards, in process over closed ranges of the samples log.

The store's position is the truth: an element only says "shard i, up to this offset", and the shard continues from its
own CURRENT. Shards stay open between rounds; a shard that a rollback fenced is opened again on the new generation, one
that another trainer fenced stops the run.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipeline.configuration.project import Project
from pipeline.errors import FencedError, HaltedError, RollbackError, SpringtideError
from pipeline.logs.log import Log
from pipeline.telemetry import metrics, readers
from pipeline.telemetry.registry import Reading
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store import VersionStore

_IDLE_WAIT_S = 0.05
_HALTED_WAIT_S = 1.0


@dataclass(frozen=True)
class TrainReport:
    """What one run did, and where its shards stand."""

    samples: int
    batches: int
    commits: int
    shards: list[dict[str, Any]]


class TrainJob:
    """One run of the train job: the shards it holds open, and the Beam rounds that drive them. One caller at a time."""

    def __init__(
        self, project: Project, log: Log, *, stop: threading.Event | None = None, migrate: bool = False
    ) -> None:
        self.project, self.log, self.migrate = project, log, migrate
        self.stop = stop or threading.Event()
        self.versions = VersionStore(project)
        self._open: dict[int, TrainerShard] = {}
        self._ends: list[tuple[int, int]] = []
        self._closed = {"samples": 0, "batches": 0, "commits": 0}
        self.failure: BaseException | None = None
        readers.register("train", self._readings)

    def shard(self, index: int) -> TrainerShard:
        """The open shard, taking it over first where this run has not yet."""
        if index not in self._open:
            self._open[index] = TrainerShard(self.project, self.log, self.versions, index, migrate=self.migrate)
        return self._open[index]

    def round(self) -> int:
        """Train every shard up to what its samples partition holds now, if that is news; returns samples learned."""
        topic, shards = self.project.config.topics.samples, self.project.config.logs.shards
        if self._rolled_back():
            self._forget_all()
        ends = [(shard, self.log.end_offset(topic, shard)) for shard in range(shards)]
        if ends == self._ends:
            return 0
        before = self._count("samples")
        self.failure = None
        _RUNNING[id(self)] = self
        try:
            with beam.Pipeline(runner=FnApiRunner()) as pipeline:
                _ = pipeline | "Shards" >> beam.Create(ends) | "Train" >> beam.ParDo(_Train(id(self)))
        finally:
            del _RUNNING[id(self)]
        if self.failure is not None:
            raise self.failure
        self._ends = ends
        return self._count("samples") - before

    def follow(self) -> None:
        """Rounds until told to stop."""
        while not self.stop.is_set():
            if self.round_or_wait() == 0:
                self.project.clock.wait(_IDLE_WAIT_S)

    def round_or_wait(self) -> int:
        """A round; 0 after waiting where a shard is halted or a rollback is under way, and where one ended."""
        try:
            return self.round()
        except (HaltedError, RollbackError):
            self._forget_all()
            self.project.clock.wait(_HALTED_WAIT_S)
        except FencedError:
            if not self._rolled_back():
                raise
            self._forget_all()
        return 0

    def report(self) -> TrainReport:
        """Counts over the whole run so far, and each open shard's position and validation."""
        counts = {name: self._count(name) for name in self._closed}
        return TrainReport(**counts, shards=[shard.status() for _, shard in sorted(self._open.items())])

    def close(self) -> None:
        """Let the shards go; what they learned since their last commit is learned again by the next run."""
        readers.unregister("train")
        self._forget_all()

    def _readings(self) -> Iterator[Reading]:
        for index in range(self.project.config.logs.shards):
            yield metrics.TRAIN_HALTED.reading(self.versions.ledger.halts.get(index) is not None, index)
        for shard in list(self._open.values()):
            yield from shard.readings()

    def _rolled_back(self) -> bool:
        return any(shard.generation != self.versions.ledger.generation() for shard in self._open.values())

    def _forget_all(self) -> None:
        for name in self._closed:
            self._closed[name] = self._count(name)
        for shard in self._open.values():
            shard.close()
        self._open.clear()
        self._ends = []

    def _count(self, name: str) -> int:
        return self._closed[name] + sum(int(getattr(shard, name)) for shard in self._open.values())


_RUNNING: dict[int, TrainJob] = {}


class _Train(beam.DoFn):
    """(shard, stop offset) → nothing: the shard's commits are the result."""

    def __init__(self, job: int) -> None:
        self._job = job

    def process(self, element: tuple[int, int]) -> Iterator[None]:
        job, (shard, stop_offset) = _RUNNING[self._job], element
        try:
            job.shard(shard).train(stop_offset, job.stop)
        except SpringtideError as failure:
            # Beam would wrap it in its own exception; the round raises it as it is.
            job.failure = failure
        yield from ()


def run_train(
    project: Project, log: Log, *, until_end: bool, stop: threading.Event | None = None, migrate: bool = False
) -> TrainReport:
    """Learn from the samples log: what is there now with `until_end`, else until `stop` is set.

    Raises:
        FencedError: another trainer took a shard over.
        HaltedError: bad data stopped the line (with `until_end`; following waits for `springtide resume`).
        MigrationError: configuration or model changed since CURRENT and `migrate` is false.
    """
    job = TrainJob(project, log, stop=stop, migrate=migrate)
    try:
        job.round() if until_end else job.follow()
        return job.report()
    finally:
        job.close()
