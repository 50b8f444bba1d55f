"""Quarantines: ranges of sample time, or of the samples log, that training must not read; or chosen samples of a time.

They are stored in the ledger and not in versions, so that a rollback to an earlier version removes none.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.arrays.types import Bools, Int64s
from pipeline.errors import InputError
from pipeline.process.clock import LATEST_MS

_MAX_OFFSET = 2**63 - 1
ANY_TIME_MS = (0, LATEST_MS + 1)
"""The range of a selection without times: all there are, those to come included."""
Position = tuple[int, int]
"""A sample position: (offset, row) in the samples log."""


@dataclass(frozen=True)
class KeySetName:
    """A stored set of keys: the values of one raw column.

    Attributes:
        column: of impressions.
        digest: of the set, which is its name in the folder of versions.
        count: distinct values.
    """

    column: str
    digest: str
    count: int


@dataclass(frozen=True)
class Selection:
    """Which samples of a time are meant: those that fulfil all that is given, at least one of the two.

    Attributes:
        where: a condition over the columns of samples.
        keys: values of one column.
    """

    where: str | None = None
    keys: KeySetName | None = None

    def describe(self) -> dict[str, Any]:
        """What is given, as JSON-able values."""
        plain = {"where": self.where, "keys": asdict(self.keys) if self.keys else None}
        return {name: value for name, value in plain.items() if value is not None}


@dataclass(frozen=True)
class Quarantine:
    """One range: either of sample times, for all shards, or of sample positions of one shard. Ends are exclusive.

    With a selection, only the samples of the times that it chooses.

    Attributes:
        id: the ledger's number; 0 before it is added.
        reason: given by the operator, or by the rollback that added it.
        times_ms: (from, to) in ms, or None.
        positions: (from, to) as (offset, row) pairs, or None.
        shard: the shard of `positions`; None with `times_ms`.
        added_at_ms: wall time.
        removed_at_ms: wall time, or None while it is in force.
        selection: which samples of `times_ms`; None: all of the range.
    """

    id: int
    reason: str
    times_ms: tuple[int, int] | None = None
    positions: tuple[Position, Position] | None = None
    shard: int | None = None
    added_at_ms: int = 0
    removed_at_ms: int | None = None
    selection: Selection | None = None

    def check(self) -> None:
        """Raises InputError for an empty range, for one that ends after the year 9999 or offset 2^63 - 1, and unless
        exactly one of times and positions is given, times with a selection.
        """
        if (self.times_ms is None) == (self.positions is None):
            raise InputError("quarantine needs either times or positions. hint: FROM..TO")
        if (self.positions is None) != (self.shard is None):
            raise InputError("quarantine of positions needs a shard, one of times takes none. hint: leave one out")
        if self.selection is not None and self.times_ms is None:
            raise InputError("quarantine of chosen samples takes times and no offsets. hint: --from TIME --to TIME")
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

    def mask(
        self, sample_at_ms: Int64s, offset: int, first_row: int = 0, chosen: Callable[[Quarantine], Bools] | None = None
    ) -> Bools:
        """Which samples of one record training must not read: [n] bool.

        Args:
            sample_at_ms: [n] int64, the later of impression and click, ms.
            offset: the record's offset in the samples log.
            first_row: index in the record of the first of the n samples.
            chosen: for an entry with a selection, which of the n samples it chooses: [n] bool.

        >>> active = Quarantines([Quarantine(1, "bots", times_ms=(10, 20))])
        >>> active.mask(np.array([9, 10, 19, 20]), offset=0).tolist()
        [False, True, True, False]
        """
        masked = np.zeros(len(sample_at_ms), np.bool_)
        for entry in self.entries:
            masked |= _covered(entry, sample_at_ms, offset, first_row, chosen)
        return masked


def _covered(
    entry: Quarantine,
    sample_at_ms: Int64s,
    offset: int,
    first_row: int,
    chosen: Callable[[Quarantine], Bools] | None,
) -> Bools:
    """[n] which samples of one record an entry covers; see `Quarantines.mask`."""
    if entry.positions is not None:
        return _between(entry.positions, offset, first_row, len(sample_at_ms))
    assert entry.times_ms is not None
    masked: Bools = (sample_at_ms >= entry.times_ms[0]) & (sample_at_ms < entry.times_ms[1])
    if entry.selection is None or not masked.any():
        return masked
    assert chosen is not None, f"quarantine {entry.id} needs the columns of samples"
    return masked & chosen(entry)


def _between(positions: tuple[Position, Position], offset: int, first_row: int, count: int) -> Bools:
    (from_offset, from_row), (to_offset, to_row) = positions
    rows = np.arange(first_row, first_row + count)
    begun = offset > from_offset or (offset == from_offset and rows >= from_row)
    ended = offset > to_offset or (offset == to_offset and rows >= to_row)
    return np.broadcast_to(np.logical_and(begun, np.logical_not(ended)), (count,))
