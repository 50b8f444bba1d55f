"""One version of one shard of the model, in memory: frozen records without I/O.

A `Commit` is either full (it holds every row) or holds what changed since its parent. `store/files.py` encodes one as a
file, `store/version_store.py` stores them, `ledger/ledger.py` lists them and holds CURRENT.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipeline.arrays.types import UInt8s, UInt32s, UInt64s
from pipeline.errors import InputError
from pipeline.versions.quality import Quality

_NAME = re.compile(r"g([0-9]{1,18})/s([0-9]{1,18})-of-([0-9]{1,18})/([0-9]{1,18})")
"""Numbers of at most 18 digits: the ledger stores 64 bits."""


@dataclass(frozen=True, order=True)
class VersionId:
    """One state of one shard: generation, shard i of n, sequence. Sequences grow along a lineage, across generations.

    >>> str(VersionId(1, 0, 2, 42))
    'g1/s0-of-2/42'
    >>> VersionId.parse("g1/s0-of-2/42").sequence
    42
    """

    generation: int
    shard: int
    shards: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.folder}/{self.sequence}"

    @property
    def folder(self) -> str:
        """The folder of the shard's files of this generation, relative to the versions or published folder."""
        return f"g{self.generation}/s{self.shard}-of-{self.shards}"

    @classmethod
    def parse(cls, name: str) -> "VersionId":
        """The version with this name. Raises InputError."""
        match = _NAME.fullmatch(name.strip())
        if match is None:
            raise InputError(f"{name!r} is not a version id, wanted one like g0/s0-of-1/42. run: springtide versions")
        return cls(*(int(part) for part in match.groups()))


@dataclass(frozen=True)
class FieldChange:
    """What a commit changes in one table: its rows, and the served entries made from them.

    Removals are applied before rows: a key in both exists afterwards. Served entries hold the bytes serving decodes.

    Attributes:
        dim: weights per row.
        keys: [n] uint64, rows that changed since the parent; every row in a full commit.
        rows: [n, row bytes] uint8, the table's packed rows.
        removed: [r] uint64, keys removed since the parent.
        served_keys: [m] uint64, served entries that changed since the parent; every entry in a full commit.
        served_handles: [m] uint32.
        served_bits: [m] uint8, 4, 8, 16 or 32.
        served_payload: uint8, their payloads concatenated, each of `payload_bytes(bits, dim)` bytes.
        served_removed: [s] uint64, keys tombstoned for serving since the parent.
        served_touched: [t] uint64, served entries put since the parent. Only a full commit needs it, for a rollback to
            an earlier version; None means `served_keys`.
    """

    dim: int
    keys: UInt64s
    rows: UInt8s
    removed: UInt64s
    served_keys: UInt64s
    served_handles: UInt32s
    served_bits: UInt8s
    served_payload: UInt8s
    served_removed: UInt64s
    served_touched: UInt64s | None = None

    @classmethod
    def empty(cls, dim: int, row_bytes: int) -> "FieldChange":
        """A change of nothing."""
        none64, none8 = np.empty(0, np.uint64), np.empty(0, np.uint8)
        rows = np.empty((0, row_bytes), np.uint8)
        return cls(dim, none64, rows, none64, none64, np.empty(0, np.uint32), none8, none8, none64)

    @property
    def touched(self) -> UInt64s:
        """[t] uint64 sorted: every key of which serving receives a row or a tombstone with this commit."""
        put = self.served_keys if self.served_touched is None else self.served_touched
        return union_keys([put, self.served_removed])


class TableChange(NamedTuple):
    """The table's part of a `FieldChange`: `keys`, `rows` and `removed`."""

    keys: UInt64s
    rows: UInt8s
    removed: UInt64s


@dataclass(frozen=True)
class ServedEntries:
    """The n entries that serving holds of one table, sorted by key.

    Attributes:
        dim: weights per row.
        keys: [n] uint64.
        handles: [n] uint32.
        bits: [n] uint8.
        payload: uint8, the entries' payloads concatenated.
    """

    dim: int
    keys: UInt64s
    handles: UInt32s
    bits: UInt8s
    payload: UInt8s

    def __len__(self) -> int:
        return len(self.keys)


class EntriesChange(NamedTuple):
    """What a change puts into the entries that serving holds of one table, and the keys it tombstones, both by key."""

    entries: ServedEntries
    removed: UInt64s


@dataclass(frozen=True)
class Commit:
    """One durable version of a shard, with everything that training needs to continue from it.

    Attributes:
        id: the version this becomes.
        parent: the version it follows; None for the first.
        epoch: the writer's epoch.
        offset: the sample position to continue from: offset in the samples log …
        row: … and row inside that record.
        log_id: identity of the samples topic that the sample position belongs to.
        first_at_ms: earliest sample time learned from since the parent.
        last_at_ms: latest sample time learned from so far.
        fields: by name of the table.
        dense: dense weights with their optimizer state.
        training_state: by name, what training needs besides rows and dense weights: admission, expiry, validation,
            model identity.
        validation: progressive validation, JSON-able (no NaN).
        quarantines_seen: ids of the quarantines that were in force.
        next_handles: by table, the first handle that this generation has not assigned.
        model_digest: of configuration, feature code and model.
        digest: hex, of what training depends on; see `training_digest`.
        served_digest: hex, of the served view.
        delta: the exact bytes published for this version.
        full: whether `fields` holds every row.
        samples_seen: samples learned from along the lineage so far.
        served_dense: the dense weights that serving holds, if the delta carries only a change of them; else empty.
        price: of a byte of deltas, as of this version (`publish/price/byte_price.py`).
        quality: of what serving holds.
        training_state_changes: by name, training state stored as the change since the parent
            (`store/training_state.py`). A name is either here or in `training_state`. Only the store sets them.
    """

    id: VersionId
    parent: VersionId | None
    epoch: int
    offset: int
    row: int
    log_id: str
    first_at_ms: int
    last_at_ms: int
    fields: Mapping[str, FieldChange]
    dense: bytes
    training_state: Mapping[str, bytes]
    validation: Mapping[str, Any]
    quarantines_seen: Sequence[int]
    next_handles: Mapping[str, int]
    model_digest: str
    digest: str
    served_digest: str
    delta: bytes
    full: bool
    samples_seen: int
    price: Mapping[str, float] = field(default_factory=dict)
    quality: Quality = field(default_factory=Quality)
    training_state_changes: Mapping[str, bytes] = field(default_factory=dict)
    served_dense: bytes = b""

    @property
    def rows_touched(self) -> int:
        """Served entries this commit puts or removes."""
        return sum(len(change.touched) for change in self.fields.values())


@dataclass(frozen=True)
class VersionSummary:
    """The ledger's entry of a version, available without opening its file; `Commit` documents the shared names.

    Attributes:
        parent: the nearest earlier version of the lineage that is retained.
        path: the version's file, relative to the versions folder.
        file_digest: the checksum that this file ends with.
        touched_path: file of the keys touched by the versions that retention dropped between parent and this one, or
            None.
        touched_digest: the checksum that this file ends with, or None.
        last_at_ms: latest sample time learned from along the lineage: never smaller than the parent's.
        size_bytes: of the file.
    """

    id: VersionId
    parent: VersionId | None
    epoch: int
    path: str
    file_digest: str
    touched_path: str | None
    touched_digest: str | None
    offset: int
    row: int
    first_at_ms: int
    last_at_ms: int
    digest: str
    served_digest: str
    size_bytes: int
    rows_touched: int
    samples_seen: int
    committed_at_ms: int
    full: bool
    pinned: bool


def union_keys(parts: Sequence[UInt64s]) -> UInt64s:
    """Every key of the parts once, sorted. Sorting is faster than hashing for millions of keys.

    >>> union_keys([np.array([3, 1], np.uint64), np.array([3], np.uint64)]).tolist()
    [1, 3]
    """
    keys = np.sort(np.concatenate([np.empty(0, np.uint64), *parts]))
    first = np.ones(len(keys), np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    union: UInt64s = keys[first]
    return union


def union_by_field(parts: Sequence[Mapping[str, UInt64s]]) -> dict[str, UInt64s]:
    """`union_keys` for each table; a part may lack tables."""
    names = sorted({name for part in parts for name in part})
    return {name: union_keys([part[name] for part in parts if name in part]) for name in names}


def version_path(id: VersionId, epoch: int) -> str:
    """The path of a version's file, relative to the versions folder.

    >>> version_path(VersionId(1, 0, 2, 42), 7)
    'g1/s0-of-2/000000000042.7.version'
    """
    return f"{id.folder}/{id.sequence:012d}.{epoch}.version"


def range_path(after: VersionId | None, upto: VersionId, kind: str) -> str:
    """The path of a file about the versions after `after` up to `upto`, relative to the versions folder.

    >>> range_path(None, VersionId(1, 0, 2, 42), "merged")
    'g1/s0-of-2/000000000042.after-0.merged'
    """
    return f"{upto.folder}/{upto.sequence:012d}.after-{after.sequence if after else 0}.{kind}"
