"""One partition of the ledger: its records, folded into a state that is snapshot now and then."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from pipeline.errors import DamagedError, OffsetError, VersionError
from pipeline.logs.interface.log import Fence, Log
from pipeline.versions.ledger.backup import LedgerBackup
from pipeline.versions.ledger.records import FORMAT, LedgerRecord, decode_record, encode_record

SNAPSHOT_EVERY = 500
"""Records between two snapshots. A snapshot is some hundred bytes for each retained version and file."""


class State(Protocol):
    """What records say together."""

    def apply(self, record: Any) -> None:
        """Take the next record."""
        ...

    def snapshot(self) -> LedgerRecord:
        """All of it as one record."""
        ...


StateT = TypeVar("StateT", bound=State)


class LedgerPartition(Generic[StateT]):
    """One partition and the state that its records make. Not thread-safe."""

    def __init__(
        self, log: Log, topic: str, number: int, empty: Callable[[], StateT], backup: LedgerBackup | None
    ) -> None:
        """`empty()` is the state without records. With `backup`, records but commits are followed by a backup."""
        self._log, self._topic, self._number, self._empty, self._backup = log, topic, number, empty, backup
        self._state, self._offset, self._since_snapshot = empty(), 0, 0

    def refresh(self) -> StateT:
        """The state of all records. Raises LogError, DamagedError."""
        try:
            self._read_to_end()
        except OffsetError:  # a writer removed what its snapshot holds
            self._state, self._offset = self._empty(), self._log.begin_offset(self._topic, self._number)
            self._read_to_end()
        return self._state

    def fence(self) -> Fence:
        """Acquire the partition: every earlier writer is fenced."""
        return self._log.acquire_fence(self._topic, self._number)

    def append(self, record: LedgerRecord, fence: Fence) -> None:
        """Record it durably. Raises FencedError, LogError."""
        self._append(record, fence)
        if self._read_to_end() > SNAPSHOT_EVERY:
            offset = self._append(self._state.snapshot(), fence)
            self._log.trim(self._topic, self._number, offset)
            self._read_to_end()
        if record.op != "committed":
            self._back_up()

    def ensure_backup(self) -> None:
        """Write the backup if there is none: one that is missing later is lost."""
        if self._backup is not None and not self._backup.exists(self._number):
            self.refresh()
            self._back_up()

    def refuse_lost_records(self) -> None:
        """Raise DamagedError if the backup holds more records than the partition."""
        found = None if self._backup is None else self._backup.find(self._number)
        if found is None:
            return
        ends_at, _ = found
        self.refresh()
        if self._offset < ends_at:
            raise DamagedError(
                f"topic {self._topic}, partition {self._number} has lost records: it ends at offset {self._offset}, "
                f"its backup at {ends_at}"
            )

    def salvaged(self) -> LedgerRecord:
        """The state as a snapshot: of the records, or of the backup if one of them is lost or cannot be read."""
        assert self._backup is not None
        try:
            self.refuse_lost_records()
            if self._offset:
                return self._state.snapshot()
        except DamagedError:
            pass
        return self._backup.read(self._number)[1]

    def begin_with(self, snapshot: LedgerRecord) -> None:
        """Begin with a snapshot, unless this was done. Raises VersionError if the partition holds something else."""
        self.refresh()
        if self._offset == 0:
            self.begin(snapshot)
        elif self._state.snapshot() != snapshot:
            raise VersionError(
                f"topic {self._topic}, partition {self._number} holds another ledger already. "
                "hint: delete the topic, or move the former ledger away"
            )

    def begin(self, snapshot: LedgerRecord) -> None:
        """Continue in a topic that was created again, with a snapshot of what was."""
        self._state, self._offset = self._empty(), 0
        self._append(snapshot, self.fence())
        self.refresh()
        self._back_up()

    def _append(self, record: LedgerRecord, fence: Fence) -> int:
        return self._log.append(self._topic, self._number, [encode_record(record)], fence=fence, headers=FORMAT)

    def _back_up(self) -> None:
        if self._backup is not None:
            self._backup.write(self._number, self._offset, self._state.snapshot())

    def _read_to_end(self) -> int:
        """Take the records since the last call; returns how many there are after the last snapshot."""
        while records := self._log.read(self._topic, self._number, self._offset):
            for record in records:
                decoded = decode_record(self._topic, self._number, record)
                self._state.apply(decoded)
                self._since_snapshot = 0 if decoded.op.endswith("snapshot") else self._since_snapshot + 1
            self._offset = records[-1].offset + 1
        return self._since_snapshot
