"""Trainer shards driven in turns by a runner: each turn learns for a moment and returns. CURRENT is the truth.

A shard stays open between turns. One that is halted waits, as does one amid a rollback; one that a rollback fenced is
opened again on the new generation; one that another trainer fenced ends its turn with the error, and whether it gets
another is the runner's affair.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator

from pipeline.ground import telemetry
from pipeline.ground.clock import Clock
from pipeline.ground.errors import FencedError, HaltedError, RollbackError
from pipeline.ground.project import Project
from pipeline.ground.telemetry import Reading
from pipeline.logs.log import Log
from pipeline.trainer.shard import TrainerShard
from pipeline.versions.store import VersionStore

_TURN_S = 1.0
"""Longest a backlog is learned from in one turn."""
_IDLE_S = 0.5
_LOOK_EVERY_S = 0.01


class TurnEnd(threading.Event):
    """Set once its time is over."""

    def __init__(self, clock: Clock, within_s: float) -> None:
        super().__init__()
        self._clock, self._ends_s = clock, clock.monotonic_s() + within_s

    def is_set(self) -> bool:
        return super().is_set() or self._clock.monotonic_s() >= self._ends_s


class LiveTrainer:
    """One shard over many turns. Not thread-safe."""

    def __init__(self, project: Project, log: Log, shard: int) -> None:
        self._project, self._log, self._index = project, log, shard
        self._versions = VersionStore(project)
        self._open: TrainerShard | None = None
        self._end = -1

    def turn(self) -> None:
        """Wait a moment for samples; learn from them for a moment.

        Raises:
            FencedError: another trainer took the shard over.
            MigrationError: configuration or model changed since CURRENT.
        """
        try:
            self._learn(TurnEnd(self._project.clock, _TURN_S))
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
        self._open, self._end = None, -1

    def readings(self) -> Iterator[Reading]:
        """What Prometheus is told, in any thread. Raises LogError."""
        yield telemetry.TRAIN_HALTED.reading(self._versions.ledger.halted(self._index) is not None, self._index)
        shard = self._open
        if shard is not None:
            yield from shard.readings()

    def _learn(self, ends: TurnEnd) -> None:
        if self._rolled_back():
            self.close()
        if self._open is None:
            with _opening:
                self._open = TrainerShard(self._project, self._log, self._versions, self._index)
        end = self._wait_for_more()
        self._open.train(end, ends)
        # A turn that ran out of time may have left something before `end`.
        self._end = -1 if ends.is_set() else end

    def _wait_for_more(self) -> int:
        clock, topic = self._project.clock, self._project.config.topics.samples
        until_s = clock.monotonic_s() + _IDLE_S
        while (end := self._log.end_offset(topic, self._index)) == self._end and clock.monotonic_s() < until_s:
            clock.wait(_LOOK_EVERY_S)
        return end

    def _rolled_back(self) -> bool:
        return self._open is not None and self._open.generation != self._versions.ledger.generation()


_held: dict[tuple[str, int], LiveTrainer] = {}
_turns: defaultdict[tuple[str, int], threading.Lock] = defaultdict(threading.Lock)
_opening = threading.Lock()
"""Building a model draws from one seed of the whole process."""


def turn(project: Project, log: Log, shard: int) -> None:
    """A turn of the shard that this process holds, opened first where it does not. Raises as `LiveTrainer.turn`."""
    of = (str(project.root), shard)
    failures = telemetry.SHARD_FAILURES.labels("train", str(shard))
    with _turns[of], failures.count_exceptions():
        if of not in _held:
            _held[of] = LiveTrainer(project, log, shard)
        _held[of].turn()


def readings(root: str) -> Iterator[Reading]:
    """What Prometheus is told of the shards of the project in `root` that this process holds. Raises LogError."""
    for (of, _), trainer in list(_held.items()):
        if of == root:
            yield from trainer.readings()
