"""What the records of the common partition say together: rollbacks, quarantines, and what operators asked for."""

from dataclasses import dataclass, field

from pipeline.versions.ledger.published_pointers import PublishedPointer
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.ledger.records import (
    CommonRecord,
    CommonSnapshot,
    Pinned,
    Published,
    Quarantined,
    Resumed,
    RollbackUpdated,
    Superseded,
)
from pipeline.versions.ledger.rollback_record import RollbackRecord
from pipeline.versions.ledger.shard_state import put_pointer, without_superseded
from pipeline.versions.state import VersionId, VersionSummary


@dataclass
class CommonState:
    """The state that concerns all shards; `apply` takes its records in order. Not thread-safe.

    Attributes:
        rollbacks: by id.
        restored: by shard, the version that the last rollback restored; its trainer takes it over when it opens.
        quarantines: by id, removed ones included.
        pins: versions that are exempt from retention.
        resumed: by shard, the number of the last halt that was cleared.
        pointers: what was published by others than the trainer.
        superseded: by shard, the version before which others than the trainer removed published files.
    """

    rollbacks: dict[int, RollbackRecord] = field(default_factory=dict)
    restored: dict[int, VersionSummary] = field(default_factory=dict)
    quarantines: dict[int, Quarantine] = field(default_factory=dict)
    pins: set[VersionId] = field(default_factory=set)
    resumed: dict[int, int] = field(default_factory=dict)
    pointers: dict[tuple[str, VersionId], PublishedPointer] = field(default_factory=dict)
    superseded: dict[int, VersionId] = field(default_factory=dict)

    def apply(self, record: CommonRecord) -> None:
        """Take the next record."""
        match record:
            case RollbackUpdated():
                self.rollbacks[record.record.id] = record.record
                self.restored |= {version.id.shard: version for version in record.restored}
                if record.quarantine is not None:
                    self.quarantines[record.quarantine.id] = record.quarantine
            case Quarantined():
                self.quarantines[record.quarantine.id] = record.quarantine
            case Pinned():
                (self.pins.add if record.pinned else self.pins.discard)(record.version)
            case Resumed():
                self.resumed[record.shard] = record.number
            case Published():
                put_pointer(self.pointers, record.pointer)
            case Superseded():
                self._supersede(record.before)
            case CommonSnapshot():
                self._replace(record)

    @property
    def generation(self) -> int:
        """The generation of new versions."""
        return max((record.generation for record in self._effective()), default=0)

    @property
    def planned(self) -> RollbackRecord | None:
        """The rollback after whose plan CURRENT has not moved yet."""
        return next((record for record in self.rollbacks.values() if record.state == "planned"), None)

    def target_of(self, generation: int, shard: int) -> VersionId | None:
        """The version that a generation of a shard began from; None for the first."""
        for record in self._effective():
            if record.generation == generation:
                return record.targets.get(shard)
        return None

    def snapshot(self) -> CommonSnapshot:
        """All of it as one record."""
        return CommonSnapshot(
            rollbacks=tuple(self.rollbacks.values()),
            restored=tuple(self.restored.values()),
            quarantines=tuple(self.quarantines.values()),
            pins=tuple(sorted(self.pins)),
            resumed=dict(self.resumed),
            pointers=tuple(self.pointers.values()),
            superseded=tuple(self.superseded.values()),
        )

    def _supersede(self, before: VersionId) -> None:
        self.superseded[before.shard] = before
        self.pointers = without_superseded(self.pointers, before)

    def _effective(self) -> list[RollbackRecord]:
        return [record for record in self.rollbacks.values() if record.state != "abandoned"]

    def _replace(self, snapshot: CommonSnapshot) -> None:
        self.rollbacks = {record.id: record for record in snapshot.rollbacks}
        self.restored = {version.id.shard: version for version in snapshot.restored}
        self.quarantines = {quarantine.id: quarantine for quarantine in snapshot.quarantines}
        self.pins, self.resumed, self.pointers = set(snapshot.pins), dict(snapshot.resumed), {}
        for pointer in snapshot.pointers:
            put_pointer(self.pointers, pointer)
        self.superseded = {before.shard: before for before in snapshot.superseded}
