"""Rows of the table `rollback`, one per rollback. They are never deleted: together they are the audit."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.versions.state import VersionId


@dataclass(frozen=True)
class RollbackRecord:
    """One rollback as the ledger stores it.

    Attributes:
        id: the ledger's number; 0 before it is stored.
        generation: the generation it created.
        state: planned (CURRENT has not moved), switched (CURRENT has moved, not announced) or done.
        targets: by shard, the version to return to.
        currents: by shard, CURRENT when it began.
        epochs: by shard, the epoch that fences the trainers and commits the switch.
        quarantine: id of the quarantine it added.
        document: the plan as the operator saw it; for the audit.
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


def rollback_of(row: sqlite3.Row) -> RollbackRecord:
    """The record stored in a row."""
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
    """Add the row of a new rollback; returns the record with its id."""
    shards = {
        shard: {"target": str(target), "current": str(record.currents[shard]), "epoch": record.epochs[shard]}
        for shard, target in record.targets.items()
    }
    inserted = connection.execute(
        "INSERT INTO rollback (generation, state, shards, quarantine, document, audit, begun_at_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            record.generation, record.state, json.dumps(shards), record.quarantine,
            json.dumps(record.document), json.dumps(record.audit), record.begun_at_ms,
        ),
    )  # fmt: skip
    assert inserted.lastrowid is not None
    return replace(record, id=inserted.lastrowid)


def update_rollback(connection: sqlite3.Connection, id: int, state: str, audit: Mapping[str, object]) -> None:
    """Store a rollback's new state and what was done so far."""
    connection.execute("UPDATE rollback SET state = ?, audit = ? WHERE id = ?", (state, json.dumps(audit), id))
