"""The trainer shards that this process holds: each learns in a thread of its own for as long as turns keep coming.

A runner's turn only shows that the shard is still wanted here, and fetches its failure. So neither what the runner does
between two turns nor the other shards of the same worker hold a click up.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator

from pipeline.configuration.project import Project
from pipeline.logs.log import Log
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading
from pipeline.trainer.run.live_trainer import LiveTrainer

_WANTED_S = 30.0
"""A shard that got no turn for so long is let go."""


class HeldShard:
    """A live trainer and the thread that drives it. Thread-safe."""

    def __init__(self, project: Project, log: Log, shard: int, wanted_s: float = _WANTED_S) -> None:
        """Begins at once; ends where no turn comes for `wanted_s`."""
        self._clock, self._live, self._wanted_s = project.clock, LiveTrainer(project, log, shard), wanted_s
        self._failure: BaseException | None = None
        self._over, self._unwanted = threading.Event(), threading.Event()
        self._wanted_at_s = self._clock.monotonic_s()
        self._thread = threading.Thread(target=self._go_on, name=f"shard {shard}", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether it learns no more."""
        return self._over.is_set()

    def turn(self) -> None:
        """Say that the shard is wanted. Raises what ended it, as `LiveTrainer.turn`."""
        self._wanted_at_s = self._clock.monotonic_s()
        if self.over and self._failure is not None:
            raise self._failure

    def let_go(self) -> None:
        """End it; what it learned since its last commit is learned again."""
        self._unwanted.set()
        self._thread.join()

    def readings(self) -> Iterator[Reading]:
        """What Prometheus is told. Raises LogError."""
        yield from self._live.readings()

    def _go_on(self) -> None:
        try:
            while not self._unwanted.is_set() and self._clock.monotonic_s() - self._wanted_at_s < self._wanted_s:
                self._live.turn()
        except BaseException as failure:
            self._failure = failure
        finally:
            self._live.close()
            self._over.set()


_held: dict[tuple[str, int], HeldShard] = {}
_turns: defaultdict[tuple[str, int], threading.Lock] = defaultdict(threading.Lock)


def turn(project: Project, log: Log, shard: int) -> None:
    """A turn of the shard, which this process takes over where it does not hold it.

    Raises what ended it since the last turn, as `LiveTrainer.turn`; the next one takes it over again.
    """
    of = (str(project.root), shard)
    failures = metrics.SHARD_FAILURES.labels("train", str(shard))
    with _turns[of], failures.count_exceptions():
        if of in _held and _held[of].over:
            _held.pop(of).turn()
        if of not in _held:
            _held[of] = HeldShard(project, log, shard)
        _held[of].turn()


def let_go(root: str) -> None:
    """End what this process holds of the project in `root`; a shard that gets another turn is opened again."""
    for of in [of for of in _held if of[0] == root]:
        with _turns[of]:
            _held.pop(of).let_go()


def readings(root: str) -> Iterator[Reading]:
    """What Prometheus is told of the shards of the project in `root` that this process holds. Raises LogError."""
    for (of, _), shard in list(_held.items()):
        if of == root and not shard.over:
            yield from shard.readings()
