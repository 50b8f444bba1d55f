"""The ledger's tables, and its rows as records: the only place that spells a column's name twice."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.state import Commit, VersionId, VersionSummary

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE shard (
    shard INTEGER PRIMARY KEY, shards INTEGER NOT NULL, epoch INTEGER NOT NULL, generation INTEGER, sequence INTEGER
);
CREATE TABLE version (
    shard INTEGER NOT NULL, generation INTEGER NOT NULL, sequence INTEGER NOT NULL, shards INTEGER NOT NULL,
    parent_generation INTEGER, parent_sequence INTEGER, epoch INTEGER NOT NULL, path TEXT NOT NULL, touched_path TEXT,
    "offset" INTEGER NOT NULL, "row" INTEGER NOT NULL, first_at_ms INTEGER NOT NULL, last_at_ms INTEGER NOT NULL,
    digest TEXT NOT NULL, served_digest TEXT NOT NULL, size_bytes INTEGER NOT NULL, rows_touched INTEGER NOT NULL,
    samples_seen INTEGER NOT NULL, committed_at_ms INTEGER NOT NULL, full INTEGER NOT NULL, pinned INTEGER NOT NULL,
    rewrites INTEGER NOT NULL, PRIMARY KEY (shard, generation, sequence)
) WITHOUT ROWID;
CREATE INDEX version_by_parent ON version (shard, parent_generation, parent_sequence);
CREATE TABLE generation (
    generation INTEGER NOT NULL, shard INTEGER NOT NULL, target_generation INTEGER NOT NULL,
    target_sequence INTEGER NOT NULL, raised_at_ms INTEGER NOT NULL, PRIMARY KEY (generation, shard)
) WITHOUT ROWID;
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT, reason TEXT NOT NULL, from_ms INTEGER, to_ms INTEGER, shard INTEGER,
    from_offset INTEGER, from_row INTEGER, to_offset INTEGER, to_row INTEGER,
    added_at_ms INTEGER NOT NULL, removed_at_ms INTEGER
);
CREATE TABLE halted (
    id INTEGER PRIMARY KEY, shard INTEGER NOT NULL, reason TEXT NOT NULL, batch_file TEXT NOT NULL,
    at_ms INTEGER NOT NULL, cleared_at_ms INTEGER
);
CREATE TABLE rollback (
    id INTEGER PRIMARY KEY AUTOINCREMENT, generation INTEGER NOT NULL, state TEXT NOT NULL, shards TEXT NOT NULL,
    quarantine INTEGER NOT NULL, document TEXT NOT NULL, audit TEXT NOT NULL, begun_at_ms INTEGER NOT NULL
);
CREATE TABLE published (
    level TEXT NOT NULL, shard INTEGER NOT NULL, shards INTEGER NOT NULL, generation INTEGER NOT NULL,
    sequence INTEGER NOT NULL, path TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (level, shard, generation, sequence)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class StagedVersion:
    """A version whose file is durable while CURRENT does not know it yet. `path` is relative to the versions folder."""

    commit: Commit
    path: str
    size_bytes: int


@dataclass(frozen=True)
class PublishedMark:
    """A version that was published at a level, where, and when (wall time)."""

    level: str
    id: VersionId
    path: str
    at_ms: int


@dataclass(frozen=True)
class Halt:
    """Why a shard waits, the kept batch, and since when (wall time)."""

    shard: int
    reason: str
    batch_file: str
    at_ms: int


@dataclass(frozen=True)
class RollbackRecord:
    """One rollback as the ledger keeps it.

    Attributes:
        id: the ledger's number.
        generation: the one it made.
        state: planned (half done), switched (nobody was told yet) or done.
        targets: by shard, the version gone back to.
        currents: by shard, CURRENT when it began.
        epochs: by shard, the epoch that fences the trainers and commits the switch.
        quarantine: id of the quarantine it added.
        document: the plan, as the operator saw it, and what resuming needs.
        audit: what was done.
        begun_at_ms: wall time.
    """

    id: int
    generation: int
    state: str
    targets: Mapping[int, VersionId]
    currents: Mapping[int, VersionId]
    epochs: Mapping[int, int]
    quarantine: int
    document: Mapping[str, Any]
    audit: Mapping[str, Any]
    begun_at_ms: int


def current_of(row: sqlite3.Row) -> VersionId | None:
    """CURRENT in a row of `shard`."""
    return (
        None if row["sequence"] is None else VersionId(row["generation"], row["shard"], row["shards"], row["sequence"])
    )


def summary_of(row: sqlite3.Row) -> VersionSummary:
    """A row of `version`."""
    shard, shards = row["shard"], row["shards"]
    parent = None
    if row["parent_sequence"] is not None:
        parent = VersionId(row["parent_generation"], shard, shards, row["parent_sequence"])
    same: tuple[str, ...] = (
        "epoch",
        "path",
        "touched_path",
        "offset",
        "row",
        "first_at_ms",
        "last_at_ms",
        "digest",
        "served_digest",
    )
    same += ("size_bytes", "rows_touched", "samples_seen", "committed_at_ms", "rewrites")
    return VersionSummary(
        id=VersionId(row["generation"], shard, shards, row["sequence"]),
        parent=parent,
        full=bool(row["full"]),
        pinned=bool(row["pinned"]),
        **{name: row[name] for name in same},
    )


def insert_version(connection: sqlite3.Connection, staged: StagedVersion, last_at_ms: int, now_ms: int) -> None:
    """A new row of `version`."""
    commit, parent = staged.commit, staged.commit.parent
    values = {
        "shard": commit.id.shard, "generation": commit.id.generation, "sequence": commit.id.sequence,
        "shards": commit.id.shards, "parent_generation": parent.generation if parent else None,
        "parent_sequence": parent.sequence if parent else None, "epoch": commit.epoch, "path": staged.path,
        "touched_path": None, "offset": commit.offset, "row": commit.row, "first_at_ms": commit.first_at_ms,
        "last_at_ms": last_at_ms, "digest": commit.digest, "served_digest": commit.served_digest,
        "size_bytes": staged.size_bytes, "rows_touched": commit.rows_touched, "samples_seen": commit.samples_seen,
        "committed_at_ms": now_ms, "full": commit.full, "pinned": False, "rewrites": 0,
    }  # fmt: skip
    names = ", ".join(f'"{name}"' for name in values)
    places = ", ".join(f":{name}" for name in values)
    connection.execute(f"INSERT INTO version ({names}) VALUES ({places})", values)


def max_event_time_of(row: sqlite3.Row) -> PublishedMark:
    """A row of `published`."""
    id = VersionId(row["generation"], row["shard"], row["shards"], row["sequence"])
    return PublishedMark(row["level"], id, row["path"], row["at_ms"])


def quarantine_of(row: sqlite3.Row) -> Quarantine:
    """A row of `quarantine`."""
    times, positions = None, None
    if row["from_ms"] is not None:
        times = (row["from_ms"], row["to_ms"])
    else:
        positions = ((row["from_offset"], row["from_row"]), (row["to_offset"], row["to_row"]))
    return Quarantine(
        row["id"], row["reason"], times, positions, row["shard"], row["added_at_ms"], row["removed_at_ms"]
    )


def insert_quarantine(connection: sqlite3.Connection, quarantine: Quarantine, now_ms: int) -> int:
    """A new row of `quarantine`; returns its id."""
    times = quarantine.times_ms or (None, None)
    positions = quarantine.positions or ((None, None), (None, None))
    done = connection.execute(
        "INSERT INTO quarantine (reason, from_ms, to_ms, shard, from_offset, from_row, to_offset, to_row, added_at_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (quarantine.reason, *times, quarantine.shard, *positions[0], *positions[1], now_ms),
    )
    assert done.lastrowid is not None
    return done.lastrowid


def rollback_of(row: sqlite3.Row) -> RollbackRecord:
    """A row of `rollback`."""
    shards = {int(shard): entry for shard, entry in json.loads(row["shards"]).items()}
    return RollbackRecord(
        id=row["id"],
        generation=row["generation"],
        state=row["state"],
        targets={shard: VersionId.parse(entry["target"]) for shard, entry in shards.items()},
        currents={shard: VersionId.parse(entry["current"]) for shard, entry in shards.items()},
        epochs={shard: entry["epoch"] for shard, entry in shards.items()},
        quarantine=row["quarantine"],
        document=json.loads(row["document"]),
        audit=json.loads(row["audit"]),
        begun_at_ms=row["begun_at_ms"],
    )


def insert_rollback(connection: sqlite3.Connection, record: RollbackRecord) -> RollbackRecord:
    """A new row of `rollback`; returns the record with its id."""
    shards = {
        shard: {"target": str(target), "current": str(record.currents[shard]), "epoch": record.epochs[shard]}
        for shard, target in record.targets.items()
    }
    done = connection.execute(
        "INSERT INTO rollback (generation, state, shards, quarantine, document, audit, begun_at_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            record.generation, record.state, json.dumps(shards), record.quarantine,
            json.dumps(record.document), json.dumps(record.audit), record.begun_at_ms,
        ),
    )  # fmt: skip
    assert done.lastrowid is not None
    return replace(record, id=done.lastrowid)


def update_rollback(connection: sqlite3.Connection, id: int, state: str, audit: Mapping[str, object]) -> None:
    """The rollback went one step on."""
    connection.execute("UPDATE rollback SET state = ?, audit = ? WHERE id = ?", (state, json.dumps(audit), id))
