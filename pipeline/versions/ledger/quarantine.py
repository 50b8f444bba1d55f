"""Quarantines: ranges of sample time, or of the samples log, that training must not read.

They are stored in the ledger and not in versions, so that a rollback to an earlier version removes none.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Bools, Int64s
from pipeline.errors import InputError, VersionError
from pipeline.process.clock import LATEST_MS, Clock
from pipeline.versions.ledger.database import Database

_MAX_OFFSET = 2**63 - 1
Position = tuple[int, int]
"""A sample position: (offset, row) in the samples log."""


@dataclass(frozen=True)
class Quarantine:
    """One range: either of sample times, for all shards, or of sample positions of one shard. Ends are exclusive.

    Attributes:
        id: the ledger's number; 0 before it is added.
        reason: given by the operator, or by the rollback that added it.
        times_ms: (from, to) in ms, or None.
        positions: (from, to) as (offset, row) pairs, or None.
        shard: the shard of `positions`; None with `times_ms`.
        added_at_ms: wall time.
        removed_at_ms: wall time, or None while it is in force.
    """

    id: int
    reason: str
    times_ms: tuple[int, int] | None = None
    positions: tuple[Position, Position] | None = None
    shard: int | None = None
    added_at_ms: int = 0
    removed_at_ms: int | None = None

    def check(self) -> None:
        """Raises InputError for an empty range, for one that ends after the year 9999 or offset 2^63 - 1, and unless
        exactly one of times and positions is given.
        """
        if (self.times_ms is None) == (self.positions is None):
            raise InputError("quarantine needs either times or positions. hint: FROM..TO")
        if (self.positions is None) != (self.shard is None):
            raise InputError("quarantine of positions needs a shard, one of times takes none. hint: leave one out")
        times, positions = self.times_ms or (0, 1), self.positions or ((0, 0), (0, 1))
        if times[0] >= times[1] or positions[0] >= positions[1]:
            raise InputError(f"quarantine {self.times_ms or positions} is empty. hint: the end is exclusive, and last")
        if times[0] < 0 or times[1] > LATEST_MS + 1 or positions[0][0] < 0 or positions[1][0] > _MAX_OFFSET:
            raise InputError(
                f"quarantine {self.times_ms or positions} is out of range. "
                f"hint: milliseconds since 1970 up to {LATEST_MS}, or offsets"
            )


@dataclass(frozen=True)
class Quarantines:
    """The quarantines in force for one shard, by id. A snapshot: read them again to include later ones."""

    entries: Sequence[Quarantine]

    def ids(self) -> list[int]:
        """Ids in force, ascending."""
        return [entry.id for entry in self.entries]

    def covers(self, offset: int) -> bool:
        """Whether a record of the samples log is in quarantine as a whole, by its offset.

        >>> active = Quarantines([Quarantine(1, "foreign", positions=((3, 0), (5, 0)), shard=0)])
        >>> [active.covers(offset) for offset in (2, 3, 4, 5)]
        [False, True, True, False]
        """
        ranges = [entry.positions for entry in self.entries if entry.positions is not None]
        return any(first <= (offset, 0) and (offset + 1, 0) <= last for first, last in ranges)

    def mask(self, sample_at_ms: Int64s, offset: int, first_row: int = 0) -> Bools:
        """Which samples of one record training must not read: [n] bool.

        Args:
            sample_at_ms: [n] int64, the later of impression and click, ms.
            offset: the record's offset in the samples log.
            first_row: index in the record of the first of the n samples.

        >>> active = Quarantines([Quarantine(1, "bots", times_ms=(10, 20))])
        >>> active.mask(np.array([9, 10, 19, 20]), offset=0).tolist()
        [False, True, True, False]
        """
        masked = np.zeros(len(sample_at_ms), np.bool_)
        for entry in self.entries:
            if entry.times_ms is not None:
                masked |= (sample_at_ms >= entry.times_ms[0]) & (sample_at_ms < entry.times_ms[1])
            elif entry.positions is not None:
                masked |= _between(entry.positions, offset, first_row, len(sample_at_ms))
        return masked


class QuarantineTable:
    """The table `quarantine`. Removed entries stay in it, so that an id is never used again. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def add(self, quarantine: Quarantine) -> int:
        """Store a quarantine, which is in force from now on; returns its id. Raises InputError for an empty range."""
        with self._database.transaction() as connection:
            return self.insert(connection, quarantine)

    def insert(self, connection: sqlite3.Connection, quarantine: Quarantine) -> int:
        """`add` inside a transaction."""
        quarantine.check()
        times = quarantine.times_ms or (None, None)
        positions = quarantine.positions or ((None, None), (None, None))
        inserted = connection.execute(
            "INSERT INTO quarantine (reason, from_ms, to_ms, shard, from_offset, from_row, to_offset, to_row, "
            "added_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (quarantine.reason, *times, quarantine.shard, *positions[0], *positions[1], self._clock.now_ms()),
        )
        assert inserted.lastrowid is not None
        return inserted.lastrowid

    def remove(self, id: int) -> None:
        """End a quarantine: samples not read yet are read again. Raises VersionError for an id not in force."""
        with self._database.transaction() as connection:
            updated = connection.execute(
                "UPDATE quarantine SET removed_at_ms = ? WHERE id = ? AND removed_at_ms IS NULL",
                (self._clock.now_ms(), id),
            )
            if updated.rowcount == 0:
                raise VersionError(f"quarantine {id} is not in force. run: springtide quarantine list")

    def all(self) -> list[Quarantine]:
        """Every quarantine ever added, removed ones included, by id."""
        return [_quarantine_of(row) for row in self._database.read("SELECT * FROM quarantine ORDER BY id")]

    def active(self, shard: int) -> Quarantines:
        """The quarantines in force for one shard."""
        return Quarantines([q for q in self.all() if q.removed_at_ms is None and q.shard in (None, shard)])


def _quarantine_of(row: sqlite3.Row) -> Quarantine:
    times, positions = None, None
    if row["from_ms"] is not None:
        times = (row["from_ms"], row["to_ms"])
    else:
        positions = ((row["from_offset"], row["from_row"]), (row["to_offset"], row["to_row"]))
    return Quarantine(
        row["id"], row["reason"], times, positions, row["shard"], row["added_at_ms"], row["removed_at_ms"]
    )


def _between(positions: tuple[Position, Position], offset: int, first_row: int, count: int) -> Bools:
    (from_offset, from_row), (to_offset, to_row) = positions
    rows = np.arange(first_row, first_row + count)
    begun = offset > from_offset or (offset == from_offset and rows >= from_row)
    ended = offset > to_offset or (offset == to_offset and rows >= to_row)
    return np.broadcast_to(np.logical_and(begun, np.logical_not(ended)), (count,))
