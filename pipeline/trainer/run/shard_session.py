"""Holds one trainer shard open across rollbacks, for both ways to run the job. CURRENT decides where it continues.

A shard that a rollback fenced is opened again on the new generation. A shard that another trainer fenced, that is
halted, or that waits for a rollback to finish, is closed and its error raised.
"""

import threading
from collections.abc import Iterator
from contextlib import suppress

import structlog

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, FencedError, RollbackError, VersionError
from pipeline.logs.interface.log import Log
from pipeline.publish.levels.full_request import TrainerLock
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading
from pipeline.trainer.run.gate_rollback import finish_rollback, roll_back_corrupted
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore

logger = structlog.get_logger(__name__)
_WAIT_MS = 100
"""How long to wait for samples before checking anything else."""


class ShardSession:
    """One shard, opened at its first use. Not thread-safe, except for `readings`."""

    def __init__(
        self, project: Project, log: Log, versions: VersionStore, shard: int, *, migrate: bool = False
    ) -> None:
        self._project, self._log, self._versions = project, log, versions
        self._index, self._migrate = shard, migrate
        self._open: TrainerShard | None = None
        self._lock = TrainerLock(project, shard)
        self._closed = {"samples": 0, "batches": 0, "commits": 0}
        self.gate_rollbacks = 0
        """How often the gate rolled the shard back."""

    def train(self, stop: threading.Event, stop_offset: int | None = None) -> None:
        """Learn up to `stop_offset`; without one, from what the log holds now or receives within 100 ms.

        Raises:
            FencedError: another trainer took the shard over.
            HaltedError, RollbackError: the shard cannot learn now.
            MigrationError: configuration or model changed since CURRENT.
        """
        while True:
            try:
                shard = self.opened()
                if not shard.rollback_due:
                    shard.train(shard.wait(_WAIT_MS) if stop_offset is None else stop_offset, stop)
                if not shard.rollback_due or stop.is_set():
                    return
                self._roll_back(shard)
            except FencedError:
                rolled_back = self.rolled_back()
                self._close_fenced()
                if not rolled_back:
                    raise
            except BaseException:
                self.close()
                raise

    def opened(self) -> TrainerShard:
        """The shard, opened on the current generation. Raises as `TrainerShard`."""
        if self.rolled_back():
            self._close_fenced()
        if self._open is None:
            finish_rollback(self._project, self._log, self._versions, self._index)
            self._lock.acquire_shared()
            try:
                self._open = TrainerShard(self._project, self._log, self._versions, self._index, migrate=self._migrate)
            except BaseException:
                self._lock.release()
                raise
        return self._open

    def _roll_back(self, shard: TrainerShard) -> None:
        """Roll back what the gate found corrupted, and close the shard; hold the shard if that cannot be done."""
        try:
            roll_back_corrupted(self._project, self._log, self._versions, self._index)
        except (DamagedError, RollbackError, VersionError) as failure:
            if self._versions.ledger.unfinished_rollbacks():
                raise
            logger.error("corrupted shard is not rolled back", shard=self._index, problem=str(failure))
            shard.held = True
        else:
            self.gate_rollbacks += 1
            generation = self._versions.ledger.generation()
            logger.warning("corrupted shard is rolled back", shard=self._index, generation=generation)

    def full_requested(self) -> bool:
        """Whether the shard is open and an operator has requested a full snapshot of it."""
        return self._open is not None and self._open.full_requested()

    def rolled_back(self) -> bool:
        """Whether the shard is open on an older generation than the current one."""
        return self._open is not None and self._open.generation != self._versions.ledger.generation()

    def count(self, name: str) -> int:
        """The total of `samples`, `batches` or `commits` over all openings."""
        return self._closed[name] + (0 if self._open is None else int(getattr(self._open, name)))

    def open_shard(self) -> TrainerShard | None:
        """The shard; None while it is closed."""
        return self._open

    def close(self) -> None:
        """Close the shard. What it learned since its last commit is learned again."""
        if self._open is None:
            return
        self._closed = {name: self.count(name) for name in self._closed}
        shard, self._open = self._open, None
        try:
            shard.close()
        finally:
            self._lock.release()

    def _close_fenced(self) -> None:
        """Close a shard that is not ours any more: what is still in progress is fenced, too."""
        with suppress(FencedError):
            self.close()

    def readings(self) -> Iterator[Reading]:
        """Metrics of the shard, in any thread. Raises LogError."""
        halted = self._versions.ledger.halts.get(self._index) is not None
        yield metrics.TRAIN_HALTED.reading(halted, self._index)
        if self._project.config.gate is not None:
            yield metrics.GATE_ROLLBACKS.reading(self.gate_rollbacks, self._index)
        shard = self._open
        if shard is not None:
            yield from shard.readings()
