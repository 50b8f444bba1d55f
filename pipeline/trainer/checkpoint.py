"""Between a shard's memory and a version: what a commit says, and how a shard continues from one.

A version holds rows, served view, admission counters, expiry clocks, dense weights, validation and position. Its digest
covers what training depends on and nothing else, so it does not change with the cadence of commits.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.admission.admit import Admitter
from pipeline.admission.expire import Sweeper
from pipeline.ground.by_field import by_field
from pipeline.ground.config import Config
from pipeline.model.identity import Identity
from pipeline.publish.publisher import FieldTouched, Prepared
from pipeline.trainer.batches import Position
from pipeline.trainer.tables import FieldTable, Tables
from pipeline.trainer.validation import Progress
from pipeline.versions.served import ServedView
from pipeline.versions.state import Commit, FieldChange

_IDENTITY = "identity"
_PROGRESS = "validation"


@dataclass
class Standing:
    """How far a shard has come. The trainer changes it batch by batch."""

    position: Position
    last_at_ms: int
    """Log time: the largest sample time learned from."""
    first_at_ms: int
    """The smallest sample time since the last commit."""
    samples_seen: int
    progress: dict[str, Progress]
    """Progressive validation by label."""

    @classmethod
    def start(cls, labels: tuple[str, ...]) -> "Standing":
        return cls(Position(0, 0), 0, np.iinfo(np.int64).max, 0, {label: Progress() for label in labels})


def take_changes(tables: Tables) -> dict[str, FieldTouched]:
    """By field, keys touched and removed since the last commit; folds them into the digests."""
    return by_field(lambda name: FieldTouched(*tables.fields[name].rows.take_changes()), tables.fields)


def field_change(
    table: FieldTable, touched: FieldTouched, prepared: Prepared, name: str, view: ServedView | None
) -> FieldChange:
    """What a commit says of one field: the touched rows and served entries, or all of them where `view` is given."""
    served = prepared.fields[name]
    keys = touched.keys if view is None else table.rows.keys()
    served_keys = served.keys if view is None else view.keys()
    handles, bits, payload = (served.handles, served.bits, served.payload) if view is None else view.export(served_keys)
    none = np.empty(0, np.uint64)
    return FieldChange(
        dim=table.config.dim,
        keys=keys,
        rows=table.rows.rows(keys).view(np.uint8).reshape(len(keys), table.rows.row_bytes),
        removed=touched.removed if view is None else none,
        served_keys=served_keys,
        served_handles=handles,
        served_bits=bits,
        served_payload=payload,
        served_removed=served.removed,
        served_touched=None if view is None else served.keys,
    )


def filters_of(tables: Tables, standing: Standing, identity: Identity) -> dict[str, bytes]:
    """Everything else a shard needs to go on, as named bytes."""
    filters = {_IDENTITY: json.dumps(identity, sort_keys=True).encode()}
    for name, table in tables.fields.items():
        filters[f"admission.{name}"] = table.admitter.to_bytes()
        filters[f"expiry.{name}"] = table.sweeper.to_bytes()
    for label, progress in standing.progress.items():
        filters[f"{_PROGRESS}.{label}"] = progress.to_bytes()
    return filters


def identity_in(commit: Commit) -> dict[str, str]:
    """What a version was trained under."""
    found: dict[str, str] = json.loads(commit.filters[_IDENTITY])
    return found


def restore_tables(commit: Commit, config: Config, kept: set[str]) -> tuple[Tables, dict[str, ServedView]]:
    """Tables and served views as a version has them; fields that are not `kept` start empty."""
    tables = Tables(config)
    views = {field.name: ServedView(field.dim) for field in config.fields}
    for name in kept & set(commit.fields):
        change, table = commit.fields[name], tables.fields[name]
        table.rows.import_rows(change.keys, np.ascontiguousarray(change.rows))
        views[name].put(change.served_keys, change.served_handles, change.served_bits, change.served_payload)
        table.admitter = Admitter.from_bytes(table.config.admission, tables.seed, commit.filters[f"admission.{name}"])
        expiry = commit.filters[f"expiry.{name}"]
        table.sweeper = Sweeper.from_bytes(table.config.expiry, config.train.half_life_s, expiry)
    return tables, views


def restore_standing(commit: Commit, labels: tuple[str, ...]) -> Standing:
    """How far the shard had come; a label that is new starts its validation afresh."""
    standing = Standing.start(labels)
    standing.position = Position(commit.offset, commit.row)
    standing.last_at_ms, standing.samples_seen = commit.last_at_ms, commit.samples_seen
    for label in labels:
        if state := commit.filters.get(f"{_PROGRESS}.{label}"):
            standing.progress[label] = Progress.from_bytes(state)
    return standing


def training_digest(tables: Tables, dense: bytes, standing: Standing) -> str:
    """Hex SHA-256 over what training depends on: rows, admission, expiry clocks, dense weights, position, log time."""
    parts: dict[str, Any] = {
        "dense": hashlib.sha256(dense).hexdigest(),
        "position": list(standing.position),
        "last_at_ms": standing.last_at_ms,
        "samples_seen": standing.samples_seen,
    }
    for name, table in tables.fields.items():
        expiry = hashlib.sha256(table.sweeper.to_bytes()).hexdigest()
        parts[f"field {name}"] = [table.rows.digest(), len(table.rows), table.admitter.digest(), expiry]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
