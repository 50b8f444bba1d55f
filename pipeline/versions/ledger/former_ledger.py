"""Reads the ledger of releases before, a SQLite file with a table per kind of entry, as snapshots of partitions."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError
from pipeline.formats.container import WrittenFile
from pipeline.versions.ledger.change_files import ChangeFile
from pipeline.versions.ledger.halt import Halt
from pipeline.versions.ledger.published_pointers import PublishedPointer
from pipeline.versions.ledger.quarantine import KeySetName, Quarantine, Selection
from pipeline.versions.ledger.records import CommonSnapshot, LedgerRecord, ShardSnapshot
from pipeline.versions.ledger.rollback_record import RollbackRecord
from pipeline.versions.state import VersionId, VersionSummary

_FORMAT = 5
_FIX = "restore the folder of versions from a copy, then run: springtide migrate-state"
_Row = Mapping[str, Any]
_SAME_NAMES = (
    "epoch", "path", "file_digest", "touched_path", "touched_digest", "offset", "row", "first_at_ms", "last_at_ms",
    "digest", "served_digest", "size_bytes", "rows_touched", "samples_seen", "committed_at_ms",
)  # fmt: skip


def read_former_ledger(path: Path, shards: int) -> list[LedgerRecord]:
    """The snapshot of each shard's partition, then that of the common one. Raises DamagedError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found != _FORMAT:
                raise DamagedError(f"{path} has format {found}, wanted {_FORMAT}. hint: use the release that wrote it")
            (problem,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if problem != "ok":
                raise DamagedError(f"{path} is damaged: {problem}. hint: {_FIX}")
            tables = {name: list(map(dict, connection.execute(f"SELECT * FROM {name}"))) for name in _TABLES}
    except sqlite3.Error as failure:
        raise DamagedError(f"{path} cannot be read: {failure}. hint: {_FIX}") from None
    return [*(_shard(tables, shard, shards) for shard in range(shards)), _common(tables)]


_TABLES = ("shard", "version", "change_file", "quarantine", "halted", "rollback", "published")


def _shard(tables: Mapping[str, Sequence[_Row]], shard: int, shards: int) -> ShardSnapshot:
    def own(table: str) -> list[_Row]:
        return [row for row in tables[table] if row["shard"] == shard]

    state = next(iter(own("shard")), None)
    halts = sorted(own("halted"), key=lambda row: int(row["id"]))
    halted = [row for row in halts if row["cleared_at_ms"] is None]
    return ShardSnapshot(
        epoch=state["epoch"] if state else 0,
        shards=shards,
        model="",
        current=_id_of(state, shard, shards) if state and state["sequence"] is not None else None,
        versions=tuple(_version(row) for row in own("version")),
        files=tuple(_file(row) for row in own("change_file")),
        pointers=tuple(
            PublishedPointer(row["level"], _id_of(row, shard, shards), row["path"], row["at_ms"])
            for row in own("published")
        ),
        superseded=None,
        halt=Halt(shard, halted[-1]["reason"], halted[-1]["batch_file"], halted[-1]["at_ms"], 1) if halted else None,
    )


def _common(tables: Mapping[str, Sequence[_Row]]) -> CommonSnapshot:
    pinned = [row for row in tables["version"] if row["pinned"]]
    return CommonSnapshot(
        rollbacks=tuple(_rollback(row) for row in tables["rollback"]),
        restored=(),
        quarantines=tuple(_quarantine(row) for row in tables["quarantine"]),
        pins=tuple(_id_of(row, row["shard"], row["shards"]) for row in pinned),
        resumed={},
        pointers=(),
        superseded=(),
    )


def _id_of(row: _Row, shard: int, shards: int) -> VersionId:
    return VersionId(row["generation"], shard, shards, row["sequence"])


def _version(row: _Row) -> VersionSummary:
    shard, shards = row["shard"], row["shards"]
    parent = None
    if row["parent_sequence"] is not None:
        parent = VersionId(row["parent_generation"], shard, shards, row["parent_sequence"])
    return VersionSummary(
        id=_id_of(row, shard, shards),
        parent=parent,
        full=bool(row["full"]),
        pinned=False,
        **{name: row[name] for name in _SAME_NAMES},
    )


def _file(row: _Row) -> ChangeFile:
    shard, shards = row["shard"], row["shards"]
    after = None
    if row["after_sequence"] is not None:
        after = VersionId(row["after_generation"], shard, shards, row["after_sequence"])
    return ChangeFile(after, _id_of(row, shard, shards), row["path"], WrittenFile(row["size_bytes"], row["digest"]))


def _rollback(row: _Row) -> RollbackRecord:
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


def _quarantine(row: _Row) -> Quarantine:
    times = None if row["from_ms"] is None else (row["from_ms"], row["to_ms"])
    positions = None
    if times is None:
        positions = ((row["from_offset"], row["from_row"]), (row["to_offset"], row["to_row"]))
    plain = json.loads(row["selection"]) if row["selection"] else None
    keys = plain.get("keys") if plain else None
    selection = Selection(plain.get("where"), KeySetName(**keys) if keys else None) if plain else None
    return Quarantine(
        row["id"], row["reason"], times, positions, row["shard"], row["added_at_ms"], row["removed_at_ms"], selection
    )
