"""Quarantines: ranges of sample time, or of the samples log, that training must not read.

They live in the ledger, beside the versions and not in them, so that a rollback to an old version forgets none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Bools = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]
Position = tuple[int, int]
"""(offset, row) in the samples log."""


@dataclass(frozen=True)
class Quarantine:
    """One range: either of sample times, for all shards, or of positions of one shard. Ends are exclusive.

    Attributes:
        id: the ledger's number; 0 before it is added.
        times_ms: (from, to) in ms, or None.
        positions: (from, to) as (offset, row) pairs, or None.
        shard: whose samples partition `positions` are of; None with `times_ms`.
        reason: the operator's words, or the rollback's.
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
        """Raises InputError for a range that is empty or of no kind or of both kinds."""
        if (self.times_ms is None) == (self.positions is None):
            raise InputError("quarantine has to name either times or positions, not both. hint: FROM..TO")
        if (self.positions is None) != (self.shard is None):
            raise InputError("quarantine of positions names one shard, one of times none. hint: leave one out")
        times, positions = self.times_ms or (0, 1), self.positions or ((0, 0), (0, 1))
        if times[0] >= times[1] or positions[0] >= positions[1]:
            raise InputError(f"quarantine {self.times_ms or positions} is empty. hint: the end is exclusive, and last")


@dataclass(frozen=True)
class Quarantines:
    """What one shard must not read now, in the order of ids. A snapshot: ask the ledger again to see later ones."""

    entries: Sequence[Quarantine]

    def ids(self) -> list[int]:
        """Ids in force, ascending."""
        return [entry.id for entry in self.entries]

    def mask(self, sample_at_ms: Int64s, offset: int, first_row: int = 0) -> Bools:
        """[n] bool, true where training must not read: samples of the record at `offset`, from `first_row` on.

        Args:
            sample_at_ms: [n] int64, the later of impression and click, ms.
            offset: of the record in the samples log.
            first_row: index in the record of the first of the n samples.

        >>> held = Quarantines([Quarantine(1, "bots", times_ms=(10, 20))])
        >>> held.mask(np.array([9, 10, 19, 20]), offset=0).tolist()
        [False, True, True, False]
        """
        hit = np.zeros(len(sample_at_ms), np.bool_)
        for entry in self.entries:
            if entry.times_ms is not None:
                hit |= (sample_at_ms >= entry.times_ms[0]) & (sample_at_ms < entry.times_ms[1])
            elif entry.positions is not None:
                hit |= _between(entry.positions, offset, first_row, len(sample_at_ms))
        return hit


def _between(positions: tuple[Position, Position], offset: int, first_row: int, count: int) -> Bools:
    (from_offset, from_row), (to_offset, to_row) = positions
    rows = np.arange(first_row, first_row + count)
    begun = offset > from_offset or (offset == from_offset and rows >= from_row)
    ended = offset > to_offset or (offset == to_offset and rows >= to_row)
    return np.broadcast_to(np.logical_and(begun, np.logical_not(ended)), (count,))
