"""Rows of the table `version`, one per version of a shard."""

import sqlite3
from dataclasses import dataclass

from pipeline.formats.container import WrittenFile
from pipeline.versions.ledger.change_files import ChangeFile, insert_change_file
from pipeline.versions.state import Commit, VersionId, VersionSummary

BY_ID = "WHERE shard = ? AND generation = ? AND sequence = ?"
"""Selects the row of one version; `version_key` gives the parameters."""

_SAME_NAMES = (
    "epoch", "path", "file_digest", "touched_path", "touched_digest", "offset", "row", "first_at_ms", "last_at_ms",
    "digest", "served_digest",
    "size_bytes", "rows_touched", "samples_seen", "committed_at_ms",
)  # fmt: skip


@dataclass(frozen=True)
class StagedVersion:
    """A version whose file is durable but which CURRENT does not include. `path` is relative to the versions folder."""

    commit: Commit
    path: str
    file: WrittenFile


def version_key(id: VersionId) -> tuple[int, int, int]:
    """The primary key of a version's row."""
    return id.shard, id.generation, id.sequence


def summary_of(row: sqlite3.Row) -> VersionSummary:
    """The summary stored in a row."""
    shard, shards = row["shard"], row["shards"]
    parent = None
    if row["parent_sequence"] is not None:
        parent = VersionId(row["parent_generation"], shard, shards, row["parent_sequence"])
    return VersionSummary(
        id=VersionId(row["generation"], shard, shards, row["sequence"]),
        parent=parent,
        full=bool(row["full"]),
        pinned=bool(row["pinned"]),
        **{name: row[name] for name in _SAME_NAMES},
    )


def insert_version(connection: sqlite3.Connection, staged: StagedVersion, last_at_ms: int, now_ms: int) -> None:
    """Add the rows of a new version and of its file."""
    commit, parent = staged.commit, staged.commit.parent
    values = {
        "shard": commit.id.shard, "generation": commit.id.generation, "sequence": commit.id.sequence,
        "shards": commit.id.shards, "parent_generation": parent.generation if parent else None,
        "parent_sequence": parent.sequence if parent else None, "epoch": commit.epoch, "path": staged.path,
        "file_digest": staged.file.digest, "touched_path": None, "touched_digest": None,
        "offset": commit.offset, "row": commit.row, "first_at_ms": commit.first_at_ms,
        "last_at_ms": last_at_ms, "digest": commit.digest, "served_digest": commit.served_digest,
        "size_bytes": staged.file.size_bytes, "rows_touched": commit.rows_touched, "samples_seen": commit.samples_seen,
        "committed_at_ms": now_ms, "full": commit.full, "pinned": False,
    }  # fmt: skip
    names = ", ".join(f'"{name}"' for name in values)
    parameters = ", ".join(f":{name}" for name in values)
    connection.execute(f"INSERT INTO version ({names}) VALUES ({parameters})", values)
    after = None if commit.full else parent
    insert_change_file(connection, ChangeFile(after, commit.id, staged.path, staged.file))


def delete_version(connection: sqlite3.Connection, id: VersionId) -> None:
    """Delete the row of a version; its parent becomes the parent of its children."""
    row = connection.execute(f"SELECT * FROM version {BY_ID}", version_key(id)).fetchone()
    if row is None:
        return
    connection.execute(
        "UPDATE version SET parent_generation = ?, parent_sequence = ? "
        "WHERE shard = ? AND parent_generation = ? AND parent_sequence = ?",
        (row["parent_generation"], row["parent_sequence"], *version_key(id)),
    )
    connection.execute(f"DELETE FROM version {BY_ID}", version_key(id))
