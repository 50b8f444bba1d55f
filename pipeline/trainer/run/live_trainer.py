"""One trainer shard that follows its samples, in turns of a moment each. CURRENT is the truth.

It stays open between turns. One that is halted waits, as does one amid a rollback; one that a rollback fenced is opened
again on the new generation; one that another trainer fenced ends its turn with the error, and whether it gets another
is the caller's affair.
"""

import threading
from collections.abc import Iterator

from pipeline.configuration.project import Project
from pipeline.errors import FencedError, HaltedError, RollbackError
from pipeline.logs.log import Log
from pipeline.process.clock import Clock
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store import VersionStore

_TURN_S = 1.0
_IDLE_S = 0.5
_WAIT_MS = 100
"""How long samples are waited for before anything else is looked at."""


class TurnEnd(threading.Event):
    """Set once its time is over."""

    def __init__(self, clock: Clock, within_s: float) -> None:
        super().__init__()
        self._clock, self._ends_s = clock, clock.monotonic_s() + within_s

    def is_set(self) -> bool:
        return super().is_set() or self._clock.monotonic_s() >= self._ends_s


class LiveTrainer:
    """One shard over many turns. Not thread-safe, but for `readings`."""

    def __init__(self, project: Project, log: Log, shard: int, turn_s: float = _TURN_S) -> None:
        self._project, self._log, self._index, self._turn_s = project, log, shard, turn_s
        self._versions = VersionStore(project)
        self._open: TrainerShard | None = None

    def turn(self) -> None:
        """For a moment learn from what is there and from what comes, as soon as it comes.

        Raises:
            FencedError: another trainer took the shard over.
            MigrationError: configuration or model changed since CURRENT.
        """
        ends = TurnEnd(self._project.clock, self._turn_s)
        try:
            self._learn(ends)
            while not ends.is_set():
                self._learn(ends)
        except (HaltedError, RollbackError):
            self.close()
            self._project.clock.wait(_IDLE_S)
        except FencedError:
            rolled_back = self._rolled_back()
            self.close()
            if not rolled_back:
                raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the shard go; what it learned since its last commit is learned again."""
        if self._open is not None:
            self._open.close()
        self._open = None

    def readings(self) -> Iterator[Reading]:
        """What Prometheus is told, in any thread. Raises LogError."""
        yield metrics.TRAIN_HALTED.reading(self._versions.ledger.halts.get(self._index) is not None, self._index)
        shard = self._open
        if shard is not None:
            yield from shard.readings()

    def _learn(self, ends: TurnEnd) -> None:
        if self._rolled_back():
            self.close()
        if self._open is None:
            self._open = TrainerShard(self._project, self._log, self._versions, self._index)
        self._open.train(self._open.wait(_WAIT_MS), ends)

    def _rolled_back(self) -> bool:
        return self._open is not None and self._open.generation != self._versions.ledger.generation()
