"""Between a shard's memory and a version: what a commit says, and how a shard continues from one.

A version holds rows, served view, admission counters, expiry clocks, dense weights, validation and position. Its digest
covers what training depends on and nothing else, so it does not change with the cadence of commits.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.admission.admit import Admitter
from pipeline.admission.expire import Sweeper
from pipeline.configuration.config import Config
from pipeline.model.identity import Identity
from pipeline.publish.publisher import ServedChange
from pipeline.trainer.batch.batches import SamplePosition
from pipeline.trainer.batch.validation import LabelValidation
from pipeline.trainer.tables.table import Changes, Rows
from pipeline.trainer.tables.tables import Tables
from pipeline.versions.deltas.served_view import ServedView
from pipeline.versions.state import Commit, FieldChange, UInt8s

_IDENTITY = "identity"
_VALIDATION = "validation"


@dataclass
class ShardProgress:
    """How far a shard has come. The trainer changes it batch by batch."""

    position: SamplePosition
    last_at_ms: int
    """Log time: the largest sample time learned from."""
    first_at_ms: int
    """The smallest sample time since the last commit."""
    samples_seen: int
    validations: dict[str, LabelValidation]
    """Progressive validation by label."""

    @classmethod
    def start(cls, labels: tuple[str, ...]) -> "ShardProgress":
        return cls(SamplePosition(0, 0), 0, np.iinfo(np.int64).max, 0, {label: LabelValidation() for label in labels})


@dataclass(frozen=True)
class BoundarySnapshot:
    """What a shard was at one batch boundary, apart from its rows: copies, which training does not change any more.

    Attributes:
        dense: dense weights with their optimizer state.
        serving_dense: the dense weights that serving needs.
        filters: everything else a shard needs to go on, by name.
        validation: progressive validation, for people and JSON.
        admission: by field, how many rows there are, and the digest of what decides who gets one.
        quarantines_seen: ids of the quarantines in force.
        flush: everything withheld goes to serving too.
    """

    progress: ShardProgress
    dense: bytes
    serving_dense: bytes
    filters: dict[str, bytes]
    validation: dict[str, Any]
    admission: dict[str, tuple[int, str]]
    quarantines_seen: list[int]
    flush: bool


def field_change(changes: Changes, served: ServedChange, dim: int) -> FieldChange:
    """What a commit says of one field of `dim` weights: rows and served entries that changed."""
    return FieldChange(
        dim=dim,
        keys=changes.touched,
        rows=packed(changes.rows),
        removed=changes.removed,
        served_keys=served.keys,
        served_handles=served.handles,
        served_bits=served.bits,
        served_payload=served.payload,
        served_removed=served.removed,
    )


def packed(rows: Rows) -> UInt8s:
    """[n, row bytes] uint8 of [n] packed rows, the same memory."""
    return rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize)


def filters_of(tables: Tables, progress: ShardProgress, identity: Identity) -> dict[str, bytes]:
    """Everything else a shard needs to go on, as named bytes."""
    filters = {_IDENTITY: json.dumps(identity, sort_keys=True).encode()}
    for name, field in tables.fields.items():
        filters[f"admission.{name}"] = field.admitter.to_bytes()
        filters[f"expiry.{name}"] = field.sweeper.to_bytes()
    for label, validation in progress.validations.items():
        filters[f"{_VALIDATION}.{label}"] = validation.to_bytes()
    return filters


def identity_in(commit: Commit) -> dict[str, str]:
    """What a version was trained under."""
    found: dict[str, str] = json.loads(commit.filters[_IDENTITY])
    return found


def restore_tables(commit: Commit, config: Config, kept: set[str]) -> tuple[Tables, dict[str, ServedView]]:
    """Tables and served views as a version has them; fields that are not `kept` start empty."""
    tables = Tables(config)
    views = empty_views(config)
    for name in kept & set(commit.fields):
        change, field = commit.fields[name], tables.fields[name]
        field.table.import_rows(change.keys, np.ascontiguousarray(change.rows))
        views[name].put(change.served_keys, change.served_handles, change.served_bits, change.served_payload)
        field.admitter = Admitter.from_bytes(field.config.admission, tables.seed, commit.filters[f"admission.{name}"])
        expiry = commit.filters[f"expiry.{name}"]
        field.sweeper = Sweeper.from_bytes(field.config.expiry, config.train.half_life_s, expiry)
    return tables, views


def empty_views(config: Config) -> dict[str, ServedView]:
    """By field, a view for a publisher: it gives the handles out, and is seldom asked whose one is."""
    return {field.name: ServedView(field.dim, by_handle=False) for field in config.fields}


def restore_progress(commit: Commit, labels: tuple[str, ...]) -> ShardProgress:
    """How far the shard had come; a label that is new starts its validation afresh."""
    progress = ShardProgress.start(labels)
    progress.position = SamplePosition(commit.offset, commit.row)
    progress.last_at_ms, progress.samples_seen = commit.last_at_ms, commit.samples_seen
    for label in labels:
        if state := commit.filters.get(f"{_VALIDATION}.{label}"):
            progress.validations[label] = LabelValidation.from_bytes(state)
    return progress


def training_digest(snapshot: BoundarySnapshot, rows: Mapping[str, int]) -> str:
    """Hex SHA-256 over what training depends on: rows, admission, expiry clocks, dense weights, position, log time.

    Args:
        snapshot: everything but the rows.
        rows: by field, the table's digest as of that snapshot.
    """
    progress = snapshot.progress
    parts: dict[str, Any] = {
        "dense": hashlib.sha256(snapshot.dense).hexdigest(),
        "position": list(progress.position),
        "last_at_ms": progress.last_at_ms,
        "samples_seen": progress.samples_seen,
    }
    for name, digest in rows.items():
        expiry = hashlib.sha256(snapshot.filters[f"expiry.{name}"]).hexdigest()
        parts[f"field {name}"] = [digest, *snapshot.admission[name], expiry]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
