"""The ledger's topic: a partition for each shard, and one for what concerns all.

A shard's partition has one writer, who holds its fence: a writer that was fenced can record nothing. The common
partition has a writer for one record at a time: a process acquires its fence, reads to the end, decides and appends; if
another acquired it in between, it repeats that. After some hundred records a writer appends a snapshot of the state and
removes the records before it, so that opening reads what is live and not the history.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.errors import DamagedError, FencedError
from pipeline.logs.interface.log import Fence, Log
from pipeline.versions.ledger.backup import LedgerBackup
from pipeline.versions.ledger.common_state import CommonState
from pipeline.versions.ledger.partition import LedgerPartition
from pipeline.versions.ledger.records import CommonRecord, LedgerRecord, ShardRecord
from pipeline.versions.ledger.shard_state import ShardState

LEDGER_FIX = "stop the trainer, then run: springtide restore-ledger"
"""What an operator does about a damaged or lost ledger."""
_ATTEMPTS = 20


class LedgerTopic:
    """The topic of a project with `shards` shards. Thread-safe, and safe with other processes."""

    def __init__(self, log: Log, topic: str, shards: int, backup: LedgerBackup | None = None) -> None:
        """With `backup`, records but commits are followed by a backup."""
        self._lock, self._log, self._name = threading.RLock(), log, topic
        self._shards = [LedgerPartition(log, topic, shard, ShardState, backup) for shard in range(shards)]
        self._common = LedgerPartition(log, topic, shards, CommonState, backup)
        self._partitions: list[LedgerPartition[Any]] = [*self._shards, self._common]
        self._fences: dict[int, Fence] = {}

    @property
    def shards(self) -> int:
        return len(self._shards)

    @contextmanager
    def reading(self, shard: int) -> Iterator[tuple[ShardState, CommonState]]:
        """The state of a shard and the common one, which do not change inside. Raises LogError, DamagedError."""
        with self._lock:
            with _named():
                of_shard = self._shards[shard].refresh()  # first: what its records build on is in the common ones
                common = self._common.refresh()
            yield of_shard, common

    @contextmanager
    def reading_common(self) -> Iterator[CommonState]:
        """The common state, which does not change inside. Raises as `reading`."""
        with self._lock:
            with _named():
                common = self._common.refresh()
            yield common

    def refuse_lost_records(self) -> None:
        """Raise DamagedError if a backup holds more than the topic: it is an older copy, or was created again."""
        with self._lock, _named():
            for partition in self._partitions:
                partition.refuse_lost_records()

    def acquire(self, shard: int) -> None:
        """Become the only writer of a shard's partition."""
        with self._lock:
            for partition in self._partitions:
                partition.ensure_backup()
            self._fences[shard] = self._shards[shard].fence()

    def holds(self, shard: int) -> bool:
        """Whether this object acquired the shard's partition; another writer may have done so since."""
        return shard in self._fences

    def append(self, shard: int, record: ShardRecord) -> None:
        """Record what happened to a shard that was acquired. Raises FencedError, LogError."""
        with self._lock:
            if shard not in self._fences:
                raise FencedError(f"shard {shard} is not written by this process. hint: its trainer does this")
            self._shards[shard].append(record, self._fences[shard])

    def append_common(self, decide: Callable[[CommonState], CommonRecord | None]) -> None:
        """Record what `decide` returns for the common state, which is the newest when it is recorded.

        `decide` may be called several times; what it raises is raised, and if it returns None nothing is recorded.
        """
        with self._lock:
            for attempt in range(_ATTEMPTS):
                fence = self._common.fence()
                record = decide(self._common.refresh())
                if record is None:
                    return
                try:
                    self._common.append(record, fence)
                    return
                except FencedError:  # another process recorded something first
                    if attempt + 1 == _ATTEMPTS:
                        raise

    def snapshots(self) -> list[LedgerRecord]:
        """What each partition holds, as one record."""
        with self._lock:
            return [partition.refresh().snapshot() for partition in self._partitions]

    def begin(self, snapshots: Sequence[LedgerRecord]) -> None:
        """Begin each partition with a snapshot; one that begins with it already stays. No writer may run.

        Raises VersionError if a partition holds something else.
        """
        for partition, snapshot in zip(self._partitions, snapshots, strict=True):
            partition.begin_with(snapshot)

    def restore(self) -> None:
        """Create the topic again, with what can be read of each partition, or its backup. No writer may run.

        Raises DamagedError if a backup that is needed is missing or damaged.
        """
        snapshots = [partition.salvaged() for partition in self._partitions]
        self._log.delete_topic(self._name)
        self._log.create_topic(self._name, len(self._partitions))
        for partition, snapshot in zip(self._partitions, snapshots, strict=True):
            partition.begin(snapshot)


@contextmanager
def _named() -> Iterator[None]:
    """Add the way out to the error of a record or a file that is damaged."""
    try:
        yield
    except DamagedError as failure:
        text = str(failure)
        raise DamagedError(text if LEDGER_FIX in text else f"{text}; the ledger is in it: {LEDGER_FIX}") from failure
