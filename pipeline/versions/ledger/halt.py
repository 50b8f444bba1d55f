"""Halt records: a shard that bad data has stopped stays stopped across restarts until its record is cleared."""

import sqlite3
from dataclasses import dataclass

from pipeline.process.clock import Clock
from pipeline.versions.ledger.database import Database


@dataclass(frozen=True)
class Halt:
    """Why a shard is halted, the file of the batch that caused it, and since when (wall time)."""

    shard: int
    reason: str
    batch_file: str
    at_ms: int


class HaltTable:
    """The table `halted`. Cleared records stay in it as history. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def set(self, shard: int, reason: str, batch_file: str) -> None:
        """Store a halt record, which replaces the one in force."""
        with self._database.transaction() as connection:
            self._clear(connection, shard)
            connection.execute(
                "INSERT INTO halted (shard, reason, batch_file, at_ms) VALUES (?, ?, ?, ?)",
                (shard, reason, batch_file, self._clock.now_ms()),
            )

    def get(self, shard: int) -> Halt | None:
        """The halt record in force; None if the shard is not halted."""
        rows = self._database.read("SELECT * FROM halted WHERE shard = ? AND cleared_at_ms IS NULL", (shard,))
        return Halt(shard, rows[0]["reason"], rows[0]["batch_file"], rows[0]["at_ms"]) if rows else None

    def clear(self, shard: int) -> bool:
        """Clear the halt record; false if the shard was not halted."""
        with self._database.transaction() as connection:
            return self._clear(connection, shard)

    def _clear(self, connection: sqlite3.Connection, shard: int) -> bool:
        updated = connection.execute(
            "UPDATE halted SET cleared_at_ms = ? WHERE shard = ? AND cleared_at_ms IS NULL",
            (self._clock.now_ms(), shard),
        )
        return updated.rowcount > 0
