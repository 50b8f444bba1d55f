"""The delta codec: rows changed and keys removed between two versions of one shard, as bytes for serving.

Layout: Confluent frame (byte 0, schema id) around the Avro record of `schemas/delta.avsc`. Its first field is a digest
of the framed record with those 16 bytes zero, which is also the delta's name. Digests are the first 16 bytes of a
SHA-256: they find damage and mistakes, and a small delta is little more than its digests. The rows of a table are one
entropy-coded stream (`coded_rows`). Realtime deltas carry differences of integers to the version before, the other
levels absolute rows: those apply to several versions. Dense weights are complete, or in a realtime delta a change of
those served (`model/network/served_weights.py`). Equal deltas have equal bytes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from pipeline.arrays.types import Bools, UInt8s, UInt32s, UInt64s
from pipeline.errors import DamagedError
from pipeline.formats.schemas import FRAME_BYTES, decode, encode, load_schema
from pipeline.versions.deltas.coded_rows import ChangedRows, announced_rows, code_rows, decode_coded_rows
from pipeline.versions.deltas.quantizer import MAX_DIM
from pipeline.versions.deltas.row_bounds import UNBOUNDED, RowBounds
from pipeline.versions.state import Commit, VersionId

Level = Literal["realtime", "incremental", "full", "reverse"]


DIGEST_BYTES = 16
_CHECKSUM = slice(FRAME_BYTES, FRAME_BYTES + DIGEST_BYTES)
_SAME_NAMES = (
    "level", "generation", "base_generation", "shard", "shards", "from_sequence", "to_sequence",
)  # fmt: skip
"""Attributes of a delta that its Avro record has under the same name."""
FORMAT = 4
"""Raised with the schema; the manifest of a published delta holds it."""
_PART_DIGESTS = {"digest": "part_digest", "dense_digest": "dense_digest"}
"""By field of the record of a part, the entry of `Delta.model`."""
_FORMER = {722_332_573: 1, 2_017_941_605: 2, 84_471_925: 3}
"""Formats of former releases by schema id, which this one refuses."""


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
        relative: [k] bool, whether a known row is a difference to the one that serving holds (`coded_rows`); only in a
            realtime delta.
    """

    dim: int
    handles: UInt32s
    new_keys: UInt64s
    new_handles: UInt32s
    bits: UInt8s
    payload: UInt8s
    removed: UInt64s
    relative: Bools

    @classmethod
    def empty(cls, dim: int) -> "FieldDelta":
        """A change without rows and tombstones."""
        none8, none32, none64 = np.empty(0, np.uint8), np.empty(0, np.uint32), np.empty(0, np.uint64)
        return cls(dim, none32, none64, none32, none8, none8, none64, np.empty(0, np.bool_))

    @property
    def rows(self) -> ChangedRows:
        """The same as `coded_rows` has it."""
        return ChangedRows(
            self.handles, self.relative, self.new_keys, self.new_handles, self.bits, self.payload,
            np.ascontiguousarray(self.removed),
        )  # fmt: skip

    def __len__(self) -> int:
        """Number of rows, tombstones not counted."""
        return len(self.bits)


DENSE_BLOCK = 64
"""Dense weights that share a step; the last block of an array is filled up with zeros."""


@dataclass(frozen=True)
class DenseChange:
    """What turns the dense weights that serving holds at one version into those of the next.

    Attributes:
        digest: of the complete dense weights afterwards, which the served digest covers; None if nothing changes.
        arrays: the bytes of all arrays that are not in blocks; None if they stay as they are.
        blocks: the blocks that changed, as the stream of a table (`coded_rows`): numbers as handles.
    """

    digest: bytes | None
    arrays: bytes | None
    blocks: bytes


UNCHANGED = DenseChange(None, None, b"")
"""Serving keeps the dense weights that it holds."""


@dataclass(frozen=True)
class Delta:
    """A change from one version of a shard to a later one, for serving.

    A realtime delta applies to version `from_sequence` of `base_generation`; an incremental or reverse delta also to
    any later version, because its rows are absolute values; a full snapshot to any version. The result is
    `to_sequence` of `generation`.

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
        dense: weights of the dense network, as serving holds them, or in a realtime delta their change.
        model: name and digest of the model; serving rejects a delta of another model. A delta cut down to a part of
            the model (`cut_to_part`) also has `part`, its name, `part_digest`, that of its definition, and
            `dense_digest` of the complete dense weights, hex.
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
    dense: bytes | DenseChange
    model: Mapping[str, str] = field(default_factory=dict)

    @property
    def to_version(self) -> VersionId:
        """The version that applying the delta results in."""
        return VersionId(self.generation, self.shard, self.shards, self.to_sequence)

    @property
    def part(self) -> str | None:
        """The part of the model that it was cut down to."""
        return self.model.get("part")

    @property
    def dense_digest(self) -> bytes | None:
        """Of the complete dense weights, which the served digest covers; None if they do not change.

        Raises DamagedError.
        """
        if isinstance(self.dense, DenseChange):
            return self.dense.digest
        if self.part is None:
            return short_digest(self.dense)
        try:
            return bytes.fromhex(self.model["dense_digest"])
        except (KeyError, ValueError):
            raise DamagedError(f"{self} has no digest of dense weights. hint: publish part {self.part} again") from None

    def __str__(self) -> str:
        versions = f"{self.base_generation}/{self.from_sequence}..{self.generation}/{self.to_sequence}"
        return f"{self.level} delta {versions} of shard {self.shard} of {self.shards}"


def short_digest(content: bytes) -> bytes:
    """The first 16 bytes of the SHA-256 of some bytes.

    >>> short_digest(b"").hex()
    'e3b0c44298fc1c149afbf4c8996fb924'
    """
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def served_digest(fields: Mapping[str, int], dense: bytes) -> str:
    """Hex digest of one shard's served view: each table's `ServedView.digest()`, by name, and the dense weights.

    >>> served_digest({"user": 1, "item": 2}, b"") == served_digest({"item": 2, "user": 1}, b"")
    True
    """
    return digest_of_digests(fields, short_digest(dense))


def digest_of_digests(fields: Mapping[str, int], dense_digest: bytes) -> str:
    """`served_digest` of dense weights whose digest is given."""
    parts = [
        len(name).to_bytes(4, "little") + name.encode() + int(fields[name]).to_bytes(8, "little")
        for name in sorted(fields)
    ]
    return short_digest(b"".join([*parts, dense_digest])).hex()


def encode_delta(delta: Delta) -> bytes:
    """The canonical encoding: equal content gives equal bytes, whatever the order of the rows."""
    record = {
        **{name: getattr(delta, name) for name in _SAME_NAMES},
        "checksum": bytes(DIGEST_BYTES),
        "before": None if delta.before is None else bytes.fromhex(delta.before),
        "after": bytes.fromhex(delta.after),
        "dense": _dense_record(delta.dense),
        "first_at": delta.first_at_ms,
        "last_at": delta.last_at_ms,
        **_model_record(delta.model),
        "fields": [_field_record(name, delta.fields[name], delta.digests[name]) for name in sorted(delta.fields)],
    }
    blank = encode(load_schema("delta"), record)
    return b"".join((blank[: _CHECKSUM.start], short_digest(blank), memoryview(blank)[_CHECKSUM.stop :]))


def delta_name(encoded: bytes) -> str:
    """The name of an encoded delta: its checksum in hex. The checksum is not verified.

    Raises:
        DamagedError: for fewer bytes than frame and checksum have.
    """
    if len(encoded) < _CHECKSUM.stop:
        raise DamagedError(f"delta has {len(encoded)} bytes, wanted at least {_CHECKSUM.stop}. hint: it is truncated")
    return bytes(encoded[_CHECKSUM]).hex()


def decode_delta(encoded: bytes, bounds: RowBounds = UNBOUNDED) -> Delta:
    """Decode a delta; each table's rows are ordered by (known or new, precision, handle).

    Args:
        encoded: the bytes of `encode_delta`.
        bounds: of the rows and of the blocks of dense weights; of bytes that another process may have written.

    Raises:
        DamagedError: for bytes that differ from what `encode_delta` wrote, and for rows out of bounds.
    """
    record = _checked_record(encoded)
    entries = {entry["name"]: entry for entry in record["fields"]}
    announced = {name: announced_rows(entry["rows"]) for name, entry in entries.items()}
    dims = {name: int(entry["dim"]) for name, entry in entries.items()}
    if isinstance(change := record["dense"], dict):
        announced[""], dims[""] = announced_rows(change["blocks"]), DENSE_BLOCK
    bounds.check(announced, dims)
    return _delta_of(record, {name: _field_of(entry, record["level"]) for name, entry in entries.items()})


def decode_heading(encoded: bytes) -> Delta:
    """A delta without its rows, which are not decoded: they may be no valid stream. Raises DamagedError."""
    record = _checked_record(encoded)
    return _delta_of(record, {entry["name"]: FieldDelta.empty(int(entry["dim"])) for entry in record["fields"]})


def _checked_record(encoded: bytes) -> dict[str, Any]:
    """The Avro record of a delta whose checksum, format and dims are right."""
    wanted = delta_name(encoded)
    if former := _FORMER.get(int.from_bytes(encoded[1:FRAME_BYTES], "big")):
        raise DamagedError(
            f"delta of {len(encoded)} bytes has format {former}, wanted {FORMAT}: a former release wrote it. "
            "run: springtide publish --level full"
        )
    sha = hashlib.sha256(encoded[: _CHECKSUM.start] + bytes(DIGEST_BYTES))
    sha.update(memoryview(encoded)[_CHECKSUM.stop :])
    got = sha.digest()[:DIGEST_BYTES].hex()
    if got != wanted:
        raise DamagedError(
            f"delta of {len(encoded)} bytes has checksum {got[:12]}, wanted {wanted[:12]}. hint: it is damaged"
        )
    record = decode(load_schema("delta"), encoded)
    for entry in record["fields"]:
        if not 1 <= entry["dim"] <= MAX_DIM:
            raise DamagedError(
                f"field {entry['name']} of a delta has dim {entry['dim']}, wanted 1..{MAX_DIM}. hint: it is damaged"
            )
    return record


def _delta_of(record: dict[str, Any], fields: Mapping[str, FieldDelta]) -> Delta:
    return Delta(
        **{name: record[name] for name in _SAME_NAMES},
        before=None if record["before"] is None else record["before"].hex(),
        after=record["after"].hex(),
        dense=_dense_of(record["dense"], record["level"]),
        first_at_ms=record["first_at"],
        last_at_ms=record["last_at"],
        fields=fields,
        digests={entry["name"]: int.from_bytes(entry["digest"], "little") for entry in record["fields"]},
        model=_model_of(record),
    )


def complete_delta(encoded: bytes, served_dense: bytes) -> Delta:
    """The delta of a version with complete dense weights: those of the delta, else `served_dense` of the version.

    Raises DamagedError as `decode_delta`, also for weights that are not those of the delta.
    """
    delta = decode_delta(encoded)
    if not isinstance(delta.dense, DenseChange):
        return delta
    if delta.dense.digest not in (None, short_digest(served_dense)):
        raise DamagedError(f"the dense weights of a version are not those of its {delta}. hint: roll back before it")
    return replace(delta, dense=served_dense)


def served_dense_of(commit: Commit) -> bytes:
    """The dense weights that serving holds at a version. Raises DamagedError."""
    dense = complete_delta(commit.delta, commit.served_dense).dense
    assert isinstance(dense, bytes)
    return dense


def _dense_record(dense: bytes | DenseChange) -> bytes | dict[str, Any] | None:
    if isinstance(dense, bytes):
        return dense
    return None if dense == UNCHANGED else vars(dense)


def _dense_of(stored: bytes | dict[str, Any] | None, level: Level) -> bytes | DenseChange:
    if isinstance(stored, bytes):
        return stored
    if level != "realtime":
        raise DamagedError(f"a delta of level {level} has a change of dense weights. hint: it is damaged")
    return UNCHANGED if stored is None else DenseChange(**stored)


def _model_record(model: Mapping[str, str]) -> dict[str, Any]:
    part = None
    if "part" in model:
        digests = {name: bytes.fromhex(model[of]) for name, of in _PART_DIGESTS.items()}
        part = {"name": model["part"], **digests}
    return {"model": model.get("name", ""), "model_digest": bytes.fromhex(model.get("digest", "")), "part": part}


def _model_of(record: dict[str, Any]) -> dict[str, str]:
    model, part = {"name": record["model"], "digest": record["model_digest"].hex()}, record["part"]
    if part is not None:
        model |= {"part": part["name"]} | {of: part[name].hex() for name, of in _PART_DIGESTS.items()}
    return {name: text for name, text in model.items() if text}


def _field_record(name: str, change: FieldDelta, digest: int) -> dict[str, Any]:
    return {
        "name": name,
        "dim": change.dim,
        "digest": digest.to_bytes(8, "little"),
        "rows": code_rows(change.rows, change.dim),
    }


def _field_of(entry: dict[str, Any], level: Level) -> FieldDelta:
    name, dim = entry["name"], int(entry["dim"])
    change = FieldDelta(dim=dim, **decode_coded_rows(entry["rows"], dim)._asdict())
    if level != "realtime" and change.relative.any():
        raise DamagedError(f"field {name} of a delta of level {level} has differences of rows. hint: it is damaged")
    return change
