"""The trainer shards of one worker on Flink: each learns in a thread of its own for as long as the runner drives it.

A turn of the runner only shows that the shard still belongs to this worker, and raises the shard's failure. So neither
the runner's work between two turns nor the worker's other shards delay a click.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator

from pipeline.configuration.project import Project
from pipeline.errors import HaltedError, RollbackError
from pipeline.logs.interface.log import Log
from pipeline.process.clock import Clock
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading
from pipeline.trainer.run.shard_session import ShardSession
from pipeline.versions.store.version_store import VersionStore

_LEARN_S = 1.0
_HALTED_WAIT_S = 0.5
_ABANDONED_AFTER_S = 30.0
"""A shard without a turn of the runner for so long is closed."""


class Deadline(threading.Event):
    """Set once its time is over."""

    def __init__(self, clock: Clock, within_s: float) -> None:
        super().__init__()
        self._clock, self._ends_s = clock, clock.monotonic_s() + within_s

    def is_set(self) -> bool:
        return super().is_set() or self._clock.monotonic_s() >= self._ends_s


def learn_for(session: ShardSession, clock: Clock, within_s: float = _LEARN_S) -> None:
    """Learn from samples as they arrive, for a limited time; wait while halted or a rollback is unfinished.

    Raises as `ShardSession.train`.
    """
    deadline = Deadline(clock, within_s)
    try:
        session.train(deadline)
        while not deadline.is_set():
            session.train(deadline)
    except (HaltedError, RollbackError):
        clock.wait(_HALTED_WAIT_S)


class ShardThread:
    """One shard and the thread that drives it. Thread-safe."""

    def __init__(self, project: Project, log: Log, shard: int, abandoned_after_s: float = _ABANDONED_AFTER_S) -> None:
        """Start at once; end if `keep_alive` is not called for `abandoned_after_s`."""
        self._clock, self._session = project.clock, ShardSession(project, log, VersionStore(project, log), shard)
        self._abandoned_after_s = abandoned_after_s
        self._failure: BaseException | None = None
        self._ended, self._stop = threading.Event(), threading.Event()
        self._kept_alive_at_s = self._clock.monotonic_s()
        self._thread = threading.Thread(target=self._run, name=f"shard {shard}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the thread has ended."""
        return self._ended.is_set()

    def keep_alive(self) -> None:
        """Let the thread run on. Raises what ended it, as `ShardSession.train`."""
        self._kept_alive_at_s = self._clock.monotonic_s()
        if self.ended and self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End the thread; what it learned since its last commit is learned again."""
        self._stop.set()
        self._thread.join()

    def readings(self) -> Iterator[Reading]:
        """Metrics of the shard. Raises LogError."""
        yield from self._session.readings()

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and not self._abandoned():
                learn_for(self._session, self._clock)
        except BaseException as failure:
            self._failure = failure
        finally:
            self._session.close()
            self._ended.set()

    def _abandoned(self) -> bool:
        return self._clock.monotonic_s() - self._kept_alive_at_s >= self._abandoned_after_s


class ShardThreads:
    """The shards that this process trains. Thread-safe."""

    def __init__(self, project: Project, log: Log) -> None:
        self._project, self._log = project, log
        self._threads: dict[int, ShardThread] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def keep_alive(self, shard: int) -> None:
        """A turn of the runner: keep the shard's thread alive, or start it.

        Raises what ended it since the last turn, as `ShardSession.train`; the next turn starts it again.
        """
        failures = metrics.SHARD_FAILURES.labels("train", str(shard))
        with self._locks[shard], failures.count_exceptions():
            if shard in self._threads and self._threads[shard].ended:
                self._threads.pop(shard).keep_alive()
            if shard not in self._threads:
                self._threads[shard] = ShardThread(self._project, self._log, shard)
            self._threads[shard].keep_alive()

    def close(self) -> None:
        """End all threads; a later turn starts one again."""
        for shard in list(self._threads):
            with self._locks[shard]:
                self._threads.pop(shard).close()

    def readings(self) -> Iterator[Reading]:
        """Metrics of the shards. Raises LogError."""
        for thread in list(self._threads.values()):
            if not thread.ended:
                yield from thread.readings()
