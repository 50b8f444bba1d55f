"""The train job in process: trains every shard up to the end of its samples partition, round after round."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.configuration.project import Project
from pipeline.errors import HaltedError, RollbackError, SpringtideError
from pipeline.logs.interface.log import Log
from pipeline.telemetry import readers
from pipeline.telemetry.registry import Reading
from pipeline.trainer.run.shard import TrainerShard
from pipeline.trainer.run.shard_session import ShardSession
from pipeline.versions.store.version_store import VersionStore

_IDLE_WAIT_S = 0.05
_HALTED_WAIT_S = 1.0


@dataclass(frozen=True)
class TrainReport:
    """Counts of one run, and the progress of its shards."""

    samples: int
    batches: int
    commits: int
    shards: list[dict[str, Any]]


class TrainJob:
    """One run of the train job. One caller at a time."""

    def __init__(
        self, project: Project, log: Log, *, stop: threading.Event | None = None, migrate: bool = False
    ) -> None:
        self.project, self.log, self.stop = project, log, stop or threading.Event()
        self._versions, shards = VersionStore(project, log), range(project.config.logs.shards)
        self._sessions = [ShardSession(project, log, self._versions, shard, migrate=migrate) for shard in shards]
        self._trained_to: list[int] = []
        self._ends: list[int] = []
        readers.register("train", self._readings)

    def round(self) -> int:
        """Train every shard up to what its samples partition holds now; returns the number of samples learned.

        Raises as `ShardSession.train`.
        """
        topic = self.project.config.topics.samples
        ends = [self.log.end_offset(topic, shard) for shard in range(len(self._sessions))]
        if ends == self._trained_to and not any(s.rolled_back() or s.full_requested() for s in self._sessions):
            return 0
        before, self._trained_to, self._ends = self._count("samples"), [], ends
        self._train_to(ends)
        self._trained_to = ends
        return self._count("samples") - before

    def open(self) -> None:
        """Open every shard, which builds the network; `round` opens those that are not. Raises as `TrainerShard`."""
        for session in self._sessions:
            session.opened()

    def follow(self) -> None:
        """Train in rounds until `stop` is set."""
        while not self.stop.is_set():
            if self.round_or_wait() == 0:
                self.project.clock.wait(_IDLE_WAIT_S)

    def round_or_wait(self) -> int:
        """A round; 0 after a wait if a shard is halted or a rollback is unfinished."""
        try:
            return self.round()
        except (HaltedError, RollbackError):
            self._close_shards()
            self.project.clock.wait(_HALTED_WAIT_S)
        return 0

    def progress(self) -> tuple[int, int]:
        """Offset reached and offset to reach in this round, summed over the shards; in any thread."""
        return sum(shard.offset for shard in self.open_shards()), sum(self._ends)

    def report(self) -> TrainReport:
        """Counts of the run so far, and the progress and validation of each open shard."""
        shards = [shard.status() for shard in self.open_shards()]
        return TrainReport(self._count("samples"), self._count("batches"), self._count("commits"), shards)

    def open_shards(self) -> list[TrainerShard]:
        """The shards that are open, by number."""
        return [shard for session in self._sessions if (shard := session.open_shard()) is not None]

    def close(self) -> None:
        """Close the shards; what they learned since their last commit is learned again by the next run."""
        readers.unregister("train")
        self._close_shards()
        self._versions.close()

    def _train_to(self, ends: list[int]) -> None:
        """Train every shard, even if another fails; a permanent failure is raised before a halt or rollback."""
        failures: list[SpringtideError] = []
        for session, end in zip(self._sessions, ends, strict=True):
            try:
                session.train(self.stop, end)
            except SpringtideError as failure:
                failures.append(failure)
        if failures:
            raise min(failures, key=lambda failure: isinstance(failure, HaltedError | RollbackError))

    def _readings(self) -> Iterator[Reading]:
        for session in self._sessions:
            yield from session.readings()

    def _close_shards(self) -> None:
        for session in self._sessions:
            session.close()
        self._trained_to = []

    def _count(self, name: str) -> int:
        return sum(session.count(name) for session in self._sessions)


def run_train(
    project: Project, log: Log, *, until_end: bool, stop: threading.Event | None = None, migrate: bool = False
) -> TrainReport:
    """Learn from the samples log: what it holds now with `until_end`, else until `stop` is set.

    Raises:
        FencedError: another trainer took a shard over.
        HaltedError: bad data halted a shard (with `until_end`; following waits for `springtide resume`).
        MigrationError: configuration or model changed since CURRENT and `migrate` is false.
    """
    job = TrainJob(project, log, stop=stop, migrate=migrate)
    try:
        job.round() if until_end else job.follow()
        return job.report()
    finally:
        job.close()
