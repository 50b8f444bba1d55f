"""The delta codec: rows changed and keys removed between two versions of one shard, as bytes for serving.

Layout: Confluent frame (byte 0, schema id) around the Avro record of `schemas/delta.avsc`. Its first field is a SHA-256
over the framed record with those 32 bytes zero, which is also the delta's name. Rows are grouped by precision and
sorted by handle; handles and removed keys are encoded as LEB128 gaps. A row that serving holds costs one or two bytes
in addition to its payload. Equal deltas have equal bytes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import UInt8s, UInt32s, UInt64s
from pipeline.errors import DamagedError
from pipeline.formats.gaps import decode_gaps, encode_gaps
from pipeline.formats.schemas import FRAME_BYTES, decode, encode, load_schema
from pipeline.versions.deltas.quantizer import MAX_DIM, PRECISIONS, payload_bytes
from pipeline.versions.deltas.row_groups import group_rows
from pipeline.versions.state import VersionId

Level = Literal["realtime", "incremental", "full", "reverse"]


_CHECKSUM = slice(FRAME_BYTES, FRAME_BYTES + 32)
_SAME_NAMES = (
    "level", "generation", "base_generation", "shard", "shards", "from_sequence", "to_sequence", "before", "after",
    "dense",
)  # fmt: skip
"""Attributes of a delta that its Avro record has under the same name."""


@dataclass(frozen=True)
class FieldDelta:
    """What changed in one table: k known rows, then n new ones.

    Attributes:
        dim: weights per row.
        handles: [k] uint32, rows that serving holds.
        new_keys: [n] uint64, keys that serving does not hold.
        new_handles: [n] uint32, the handles assigned to them.
        bits: [k + n] uint8, precision of each row: 4, 8, 16 or 32.
        payload: [sum of payload_bytes(bits, dim)] uint8, the rows' payloads concatenated, known ones first.
        removed: [r] uint64, keys without a row from now on. They are applied before the rows.
    """

    dim: int
    handles: UInt32s
    new_keys: UInt64s
    new_handles: UInt32s
    bits: UInt8s
    payload: UInt8s
    removed: UInt64s

    @classmethod
    def empty(cls, dim: int) -> "FieldDelta":
        """A change without rows and tombstones."""
        none8, none32, none64 = np.empty(0, np.uint8), np.empty(0, np.uint32), np.empty(0, np.uint64)
        return cls(dim, none32, none64, none32, none8, none8, none64)

    def __len__(self) -> int:
        """Number of rows, tombstones not counted."""
        return len(self.bits)


@dataclass(frozen=True)
class Delta:
    """A change from one version of a shard to a later one, for serving.

    It applies to version `from_sequence` of `base_generation`; an incremental or reverse delta also to any later
    version, because rows are absolute values; a full snapshot to any version. The result is `to_sequence` of
    `generation`.

    Attributes:
        level: realtime, incremental, full or reverse (of a rollback).
        base_generation: the old generation in a reverse delta, else equal to `generation`.
        first_at_ms: earliest event time learned from between the two versions.
        last_at_ms: latest event time learned from between the two versions.
        before: served digest of `from_sequence`; None if the delta applies to several versions.
        after: served digest of `to_sequence`; see `served_digest`.
        fields: by name of the table.
        digests: by name of the table, `ServedView.digest()` at `to_sequence`. A replica that holds some of the tables
            takes those of the others from here: `after` covers all.
        dense: weights of the dense network, as the model writes them for serving.
        model: name and digest of the model; serving rejects a delta of another model.
    """

    level: Level
    generation: int
    shard: int
    shards: int
    from_sequence: int
    to_sequence: int
    first_at_ms: int
    last_at_ms: int
    base_generation: int
    before: str | None
    after: str
    fields: Mapping[str, FieldDelta]
    digests: Mapping[str, int]
    dense: bytes
    model: Mapping[str, str] = field(default_factory=dict)

    @property
    def to_version(self) -> VersionId:
        """The version that applying the delta results in."""
        return VersionId(self.generation, self.shard, self.shards, self.to_sequence)

    def __str__(self) -> str:
        versions = f"{self.base_generation}/{self.from_sequence}..{self.generation}/{self.to_sequence}"
        return f"{self.level} delta {versions} of shard {self.shard} of {self.shards}"


def served_digest(fields: Mapping[str, int], dense: bytes) -> str:
    """Hex digest of one shard's served view: each table's `ServedView.digest()`, by name, and the dense weights.

    >>> served_digest({"user": 1, "item": 2}, b"") == served_digest({"item": 2, "user": 1}, b"")
    True
    """
    return digest_of_hashes(fields, hashlib.sha256(dense).digest())


def digest_of_hashes(fields: Mapping[str, int], dense_sha256: bytes) -> str:
    """`served_digest` of dense weights whose SHA-256 is given."""
    sha = hashlib.sha256()
    for name in sorted(fields):
        sha.update(len(name).to_bytes(4, "little") + name.encode() + int(fields[name]).to_bytes(8, "little"))
    sha.update(dense_sha256)
    return sha.hexdigest()


def encode_delta(delta: Delta) -> bytes:
    """The canonical encoding: equal content gives equal bytes, whatever the order of the rows."""
    record = {
        **{name: getattr(delta, name) for name in _SAME_NAMES},
        "checksum": bytes(32),
        "first_at": delta.first_at_ms,
        "last_at": delta.last_at_ms,
        "model": {name: delta.model[name] for name in sorted(delta.model)},
        "fields": [_field_record(name, delta.fields[name], delta.digests[name]) for name in sorted(delta.fields)],
    }
    blank = encode(load_schema("delta"), record)
    return b"".join((blank[: _CHECKSUM.start], hashlib.sha256(blank).digest(), memoryview(blank)[_CHECKSUM.stop :]))


def delta_name(encoded: bytes) -> str:
    """The name of an encoded delta: its checksum in hex. The checksum is not verified.

    Raises:
        DamagedError: for fewer bytes than frame and checksum have.
    """
    if len(encoded) < _CHECKSUM.stop:
        raise DamagedError(f"delta has {len(encoded)} bytes, wanted at least {_CHECKSUM.stop}. hint: it is truncated")
    return bytes(encoded[_CHECKSUM]).hex()


def decode_delta(encoded: bytes) -> Delta:
    """Decode a delta; each table's rows are ordered by (known or new, precision, handle).

    Raises:
        DamagedError: for bytes that differ from what `encode_delta` wrote.
    """
    wanted = delta_name(encoded)
    sha = hashlib.sha256(encoded[: _CHECKSUM.start] + bytes(32))
    sha.update(memoryview(encoded)[_CHECKSUM.stop :])
    got = sha.hexdigest()
    if got != wanted:
        raise DamagedError(
            f"delta of {len(encoded)} bytes has checksum {got[:12]}, wanted {wanted[:12]}. hint: it is damaged"
        )
    record = decode(load_schema("delta"), encoded)
    return Delta(
        **{name: record[name] for name in _SAME_NAMES},
        first_at_ms=record["first_at"],
        last_at_ms=record["last_at"],
        fields={entry["name"]: _field_of(entry) for entry in record["fields"]},
        digests={entry["name"]: int.from_bytes(entry["digest"], "little") for entry in record["fields"]},
        model=record["model"],
    )


def _field_record(name: str, change: FieldDelta, digest: int) -> dict[str, Any]:
    return {
        "name": name,
        "dim": change.dim,
        "digest": digest.to_bytes(8, "little"),
        "removed": encode_gaps(np.sort(change.removed)),
        "groups": group_rows(
            change.handles, change.new_keys, change.new_handles, change.bits, change.payload, change.dim
        ),
    }


def _field_of(entry: dict[str, Any]) -> FieldDelta:
    dim, groups = int(entry["dim"]), entry["groups"]
    _check_groups(entry["name"], dim, groups)
    known = [_handles(g["known"]) for g in groups]
    fresh = [_handles(g["new_handles"]) for g in groups]
    payloads = [_split_payload(*each, dim) for each in zip(groups, known, fresh, strict=True)]
    bits = [
        np.full(len(rows), g["bits"], np.uint8) for part in (known, fresh) for rows, g in zip(part, groups, strict=True)
    ]
    return FieldDelta(
        dim=dim,
        handles=_joined(known, np.uint32),
        new_keys=_joined([np.frombuffer(g["new_keys"], "<u8") for g in groups], np.uint64),
        new_handles=_joined(fresh, np.uint32),
        bits=_joined(bits, np.uint8),
        payload=_joined([p[0] for p in payloads] + [p[1] for p in payloads], np.uint8),
        removed=decode_gaps(entry["removed"]),
    )


def _check_groups(name: str, dim: int, groups: list[dict[str, Any]]) -> None:
    precisions = [group["bits"] for group in groups]
    if not 1 <= dim <= MAX_DIM or precisions != [bits for bits in PRECISIONS if bits in precisions]:
        raise DamagedError(f"field {name} of a delta has dim {dim} and rows of {precisions} bits. hint: it is damaged")


def _handles(gaps: bytes) -> UInt32s:
    handles = decode_gaps(gaps)
    if len(handles) and handles.max() > np.iinfo(np.uint32).max:
        raise DamagedError(f"a delta has handle {handles.max()}, wanted one below 2^32. hint: it is damaged")
    return handles.astype(np.uint32)


def _split_payload(group: dict[str, Any], known: UInt32s, fresh: UInt32s, dim: int) -> tuple[UInt8s, UInt8s]:
    """The payloads of a group's known rows and of its new ones. Raises DamagedError if bytes or keys are missing."""
    row_bytes, payload = payload_bytes(group["bits"], dim), np.frombuffer(group["payload"], np.uint8)
    wanted = (row_bytes * (len(known) + len(fresh)), 8 * len(fresh))
    if (len(payload), len(group["new_keys"])) != wanted:
        raise DamagedError(
            f"{len(known)} known and {len(fresh)} new rows of {group['bits']} bits have {len(payload)} payload bytes "
            f"and {len(group['new_keys'])} of keys, wanted {wanted[0]} and {wanted[1]}. hint: the delta is damaged"
        )
    cut = len(known) * row_bytes
    return payload[:cut], payload[cut:]


def _joined(parts: list[npt.NDArray[Any]], kind: Any) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *parts]).astype(kind, copy=False)
