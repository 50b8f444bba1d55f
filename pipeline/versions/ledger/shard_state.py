"""What the records of a shard's partition say together: its versions, their files, CURRENT, and its halts."""

from dataclasses import dataclass, field, replace

from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.ledger.halt import Halt
from pipeline.versions.ledger.published_pointers import PublishedPointer
from pipeline.versions.ledger.records import (
    Committed,
    Dropped,
    Halted,
    Merged,
    Opened,
    Published,
    ShardRecord,
    ShardSnapshot,
    Superseded,
)
from pipeline.versions.ledger.staged_version import own_file
from pipeline.versions.state import VersionId, VersionSummary


@dataclass
class ShardState:
    """The state of one shard; `apply` takes its records in order. Not thread-safe."""

    epoch: int = 0
    shards: int = 0
    model: str = ""
    current: VersionId | None = None
    versions: dict[VersionId, VersionSummary] = field(default_factory=dict)
    files: dict[str, ChangeFile] = field(default_factory=dict)
    pointers: dict[tuple[str, VersionId], PublishedPointer] = field(default_factory=dict)
    superseded: VersionId | None = None
    halt: Halt | None = None

    def apply(self, record: ShardRecord) -> None:
        """Take the next record."""
        match record:
            case Opened():
                self.epoch, self.shards, self.model = record.epoch, record.shards, record.model
                for version in record.restored:
                    self._add(version)
            case Committed():
                self._add(record.version)
            case Merged():
                self.files[record.file.path] = record.file
            case Dropped():
                self._drop(record)
            case Published():
                put_pointer(self.pointers, record.pointer)
            case Superseded():
                self.superseded = record.before
                self.pointers = without_superseded(self.pointers, record.before)
            case Halted():
                self.halt = record.halt
            case ShardSnapshot():
                self._replace(record)

    def snapshot(self) -> ShardSnapshot:
        """All of it as one record."""
        return ShardSnapshot(
            epoch=self.epoch,
            shards=self.shards,
            model=self.model,
            current=self.current,
            versions=tuple(self.versions.values()),
            files=tuple(self.files.values()),
            pointers=tuple(self.pointers.values()),
            superseded=self.superseded,
            halt=self.halt,
        )

    def _add(self, version: VersionSummary) -> None:
        self.versions[version.id] = version
        file = own_file(version)
        self.files[file.path] = file
        self.current = version.id

    def _drop(self, record: Dropped) -> None:
        for touched in record.touched:
            version = self.versions[touched.version]
            self.versions[version.id] = replace(version, touched_path=touched.path, touched_digest=touched.digest)
        dropped = {id: self.versions.pop(id) for id in record.versions if id in self.versions}
        if dropped:
            for id, version in self.versions.items():
                self.versions[id] = replace(version, parent=_retained_parent(version, dropped))
        for path in record.files:
            self.files.pop(path, None)

    def _replace(self, snapshot: ShardSnapshot) -> None:
        self.epoch, self.shards, self.model = snapshot.epoch, snapshot.shards, snapshot.model
        self.current = snapshot.current
        self.versions = {version.id: version for version in snapshot.versions}
        self.files = {file.path: file for file in snapshot.files}
        self.pointers = {}
        for pointer in snapshot.pointers:
            put_pointer(self.pointers, pointer)
        self.superseded, self.halt = snapshot.superseded, snapshot.halt


def put_pointer(pointers: dict[tuple[str, VersionId], PublishedPointer], pointer: PublishedPointer) -> None:
    """Record that a version was published; for one that was published at this level before, another path."""
    pointers[pointer.level, pointer.id] = pointer


def without_superseded(
    pointers: dict[tuple[str, VersionId], PublishedPointer], before: VersionId
) -> dict[tuple[str, VersionId], PublishedPointer]:
    """The pointers without those of the shard to versions before `before`."""
    return {
        key: pointer for key, pointer in pointers.items() if pointer.id.shard != before.shard or pointer.id >= before
    }


def _retained_parent(version: VersionSummary, dropped: dict[VersionId, VersionSummary]) -> VersionId | None:
    parent = version.parent
    while parent is not None and parent in dropped:
        parent = dropped[parent].parent
    return parent
