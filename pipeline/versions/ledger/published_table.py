"""Published pointers: which versions of a shard were published as files, per level."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.process.clock import Clock
from pipeline.versions.ledger.database import Database
from pipeline.versions.ledger.version_rows import version_key
from pipeline.versions.state import VersionId


@dataclass(frozen=True)
class PublishedPointer:
    """A version that was published at a level, the path of its file, and when (wall time)."""

    level: str
    id: VersionId
    path: str
    at_ms: int


class PublishedTable:
    """The table `published`. Thread-safe."""

    def __init__(self, database: Database, clock: Clock, last_sequences: Callable[[int], Mapping[int, int]]) -> None:
        """`last_sequences`: for a shard, by generation, the last sequence that CURRENT descends from."""
        self._database, self._clock, self._last_sequences = database, clock, last_sequences

    def set(self, level: str, id: VersionId, path: str) -> None:
        """Record that `id` was published; for a version recorded before, only the path changes."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO published VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (level, shard, generation, sequence) "
                "DO UPDATE SET shards = excluded.shards, path = excluded.path, at_ms = excluded.at_ms",
                (level, id.shard, id.shards, id.generation, id.sequence, path, self._clock.now_ms()),
            )

    def latest(self, level: str, shard: int) -> PublishedPointer | None:
        """The latest pointer of a level whose version CURRENT descends from; a version that was undone is skipped."""
        last_sequences = self._last_sequences(shard)
        rows = self._database.read(
            "SELECT * FROM published WHERE level = ? AND shard = ? ORDER BY generation DESC, sequence DESC",
            (level, shard),
        )
        pointers = [_pointer_of(row) for row in rows]
        return next((p for p in pointers if p.id.sequence <= last_sequences.get(p.id.generation, -1)), None)

    def remove_before(self, id: VersionId) -> None:
        """Remove the shard's pointers to versions before `id`, those of earlier generations included."""
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM published WHERE shard = ? AND (generation, sequence) < (?, ?)", version_key(id)
            )


def _pointer_of(row: sqlite3.Row) -> PublishedPointer:
    id = VersionId(row["generation"], row["shard"], row["shards"], row["sequence"])
    return PublishedPointer(row["level"], id, row["path"], row["at_ms"])
