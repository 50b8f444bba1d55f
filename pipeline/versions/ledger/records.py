"""What the records of the ledger say: one class for each thing that happens to versions.

A record is JSON: `op` names its class, the other entries are those of the class. Classes of `ShardRecord` are in the
partition of one shard, written by its trainer; those of `CommonRecord` in the last partition, written by the
process that acquired it: operators, and trainers that roll back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.errors import DamagedError
from pipeline.logs.interface.log import Record
from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.ledger.halt import Halt
from pipeline.versions.ledger.published_pointers import PublishedPointer
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.ledger.rollback_record import RollbackRecord
from pipeline.versions.state import VersionId, VersionSummary


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A writer acquired the shard. Versions that a rollback restored since the last writer become the shard's own."""

    op: Literal["opened"] = "opened"
    epoch: int
    shards: int
    model: str
    """Name of the model: two models never share a ledger."""
    restored: tuple[VersionSummary, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Committed:
    """A version, which is CURRENT from now on."""

    op: Literal["committed"] = "committed"
    version: VersionSummary


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A file that holds what several versions changed."""

    op: Literal["merged"] = "merged"
    file: ChangeFile


@dataclass(frozen=True, kw_only=True)
class Touched:
    """The file of the keys that dropped versions before `version` touched."""

    version: VersionId
    path: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Versions that retention dropped, files that no other version needs, and what the dropped ones touched."""

    op: Literal["dropped"] = "dropped"
    versions: tuple[VersionId, ...]
    files: tuple[str, ...]
    touched: tuple[Touched, ...]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A version was published as a file; for one published before, only the path changes. In either partition."""

    op: Literal["published"] = "published"
    pointer: PublishedPointer


@dataclass(frozen=True, kw_only=True)
class Superseded:
    """Published files of versions before `before` were removed. In either partition."""

    op: Literal["superseded"] = "superseded"
    before: VersionId


@dataclass(frozen=True, kw_only=True)
class Halted:
    """Bad data has stopped the shard; `halt.number` counts its halts."""

    op: Literal["halted"] = "halted"
    halt: Halt


@dataclass(frozen=True, kw_only=True)
class ShardSnapshot:
    """All that the records of the shard's partition before this one say."""

    op: Literal["shard-snapshot"] = "shard-snapshot"
    epoch: int
    shards: int
    model: str
    current: VersionId | None
    versions: tuple[VersionSummary, ...]
    files: tuple[ChangeFile, ...]
    pointers: tuple[PublishedPointer, ...]
    superseded: VersionId | None
    halt: Halt | None


@dataclass(frozen=True, kw_only=True)
class RollbackUpdated:
    """A rollback begins, or one that was recorded before goes on: its record replaces the one with the same id."""

    op: Literal["rollback"] = "rollback"
    record: RollbackRecord
    restored: tuple[VersionSummary, ...] = ()
    """When CURRENT moves: the version of the new generation of each shard."""
    quarantine: Quarantine | None = None
    """When it begins: what it quarantines."""


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A quarantine was added, or removed: it replaces the one with the same id."""

    op: Literal["quarantined"] = "quarantined"
    quarantine: Quarantine


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A version is exempt from retention, or no longer."""

    op: Literal["pinned"] = "pinned"
    version: VersionId
    pinned: bool


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """The shard's halts up to this number are cleared."""

    op: Literal["resumed"] = "resumed"
    shard: int
    number: int


@dataclass(frozen=True, kw_only=True)
class CommonSnapshot:
    """All that the records of the common partition before this one say."""

    op: Literal["common-snapshot"] = "common-snapshot"
    rollbacks: tuple[RollbackRecord, ...]
    restored: tuple[VersionSummary, ...]
    quarantines: tuple[Quarantine, ...]
    pins: tuple[VersionId, ...]
    resumed: Mapping[int, int]
    pointers: tuple[PublishedPointer, ...]
    superseded: tuple[VersionId, ...]


ShardRecord = Opened | Committed | Merged | Dropped | Published | Superseded | Halted | ShardSnapshot
CommonRecord = RollbackUpdated | Quarantined | Pinned | Resumed | Published | Superseded | CommonSnapshot
LedgerRecord = ShardRecord | CommonRecord

_FORM: TypeAdapter[LedgerRecord] = TypeAdapter(Annotated[LedgerRecord, Field(discriminator="op")])
FORMAT = {"format": "1"}
"""Headers of every record."""


def encode_record(record: LedgerRecord) -> bytes:
    """The value of a record."""
    return _FORM.dump_json(record)


def decode_record(topic: str, partition: int, record: Record) -> Any:
    """What a record of the ledger says. Raises DamagedError that names it."""
    where = f"topic {topic}, partition {partition}, offset {record.offset}"
    if dict(record.headers) != FORMAT:
        raise DamagedError(
            f"{where}: headers {dict(record.headers)}, wanted {FORMAT}. hint: another release or program wrote it"
        )
    return parse_record(record.value, where)


def parse_record(value: bytes, where: str) -> Any:
    """What the value of a record says. Raises DamagedError that names `where` it is."""
    try:
        return _FORM.validate_json(value)
    except ValidationError as failure:
        raise DamagedError(
            f"{where} is no record of a ledger: {failure.errors(include_url=False)[0]['msg']}. "
            "hint: springtide restore-ledger"
        ) from None
