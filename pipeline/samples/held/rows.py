"""The typed rows of held impressions and the operations on them; the Python interface of `native/join/join_rows`.

Flags and `closed` of a row are those of the first feedback; others have a byte of status per row beside them.
`HELD` is also the layout of impressions in stored segments. The caller defines flags and times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.block import EventBlock, Int32s
from pipeline.arrays.checks import require_array
from pipeline.arrays.types import Int64s, UInt8s, UInt64s
from pipeline.errors import InputError

HELD = np.dtype(
    [
        ("id", "u8", (2,)),
        ("at", "i8"),
        ("offset", "i8"),
        ("partition", "i4"),
        ("row", "i4"),
        ("flags", "u1"),
        ("closed", "?"),
    ],
    align=True,
)
"""A held impression."""
CLOSED = 128
"""The bit of a status for a closed window; the others are flags."""


@dataclass(frozen=True)
class Source:
    """Event times and source positions of n events, [n] each.

    Attributes:
        at, offset: int64; times are ms.
        partition, row: int32.
    """

    at: Int64s
    offset: Int64s
    partition: Int32s
    row: Int32s

    @classmethod
    def of(cls, rows: np.ndarray) -> "Source":
        """From [n] typed rows with these four fields."""
        return cls(*(np.ascontiguousarray(rows[name]) for name in _SOURCE))

    @classmethod
    def concatenate(cls, parts: Sequence["Source"]) -> "Source":
        """One or more parts, in order."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _SOURCE))

    def take(self, index: Int64s) -> "Source":
        """Those at `index`."""
        return Source(*(getattr(self, name).take(index) for name in _SOURCE))


_SOURCE = tuple(field.name for field in fields(Source))


@dataclass(frozen=True)
class Extent:
    """Statistics of rows.

    Attributes:
        lowest_at, latest_at: ms.
        open: how many of them are not closed.
        lowest_offsets: by partition.
    """

    lowest_at: int
    latest_at: int
    open: int
    lowest_offsets: Mapping[int, int]


@dataclass(frozen=True)
class EmissionFilter:
    """Which rows to emit when their windows close.

    Attributes:
        excluded_flags: rows with any of these flags are not emitted.
        ids_below: rows are emitted if the second half of their id is below this; None: all are.
    """

    excluded_flags: int
    ids_below: int | None


def held_rows(block: EventBlock, ids: UInt64s, flags: UInt8s) -> np.ndarray:
    """A block's rows as [n] HELD.

    Args:
        block: n events.
        ids: [n, 2] uint64.
        flags: [n] uint8.
    """
    n = len(block)
    require_array("ids", ids, np.uint64, (n, 2))
    columns = {"at": (block.at_ms, np.int64), "offsets": (block.offsets, np.int64), "rows": (block.rows, np.int32)}
    for name, (column, dtype) in columns.items():
        require_array(name, column, dtype, (n,))
    require_array("flags", flags, np.uint8, (n,))
    out = np.zeros(n, HELD)
    _native.join_fill_held(ids, block.at_ms, block.offsets, block.rows, flags, block.partition, _bytes(out))
    return out


def extent_of(rows: np.ndarray) -> Extent:
    """The extent of [n] HELD rows, n at least 1."""
    _require_held(rows)
    if not len(rows):
        raise InputError("rows: got no rows, wanted at least one")
    lowest, latest, still_open, offsets = _native.join_extent(_bytes(rows))
    return Extent(lowest, latest, still_open, dict(offsets))


def close_rows(
    rows: np.ndarray, part: tuple[int, int], until_ms: int, emission: EmissionFilter
) -> tuple[Int64s, int | None]:
    """Close the open rows of a part with time at most `until_ms`.

    Args:
        rows: [n] HELD; `closed` changes.
        part: its first row, and the row after its last.
        until_ms: ms.
        emission: which of them to emit.

    Returns:
        to_emit: [m] int64 numbers of the rows that are closed now and pass the filter, ascending.
        lowest_open_at: the lowest time of a row of the part that is still open; None if all are closed.
    """
    _require_held(rows)
    start, stop = part
    if not 0 <= start <= stop <= len(rows):
        raise InputError(f"part: got {start}..{stop}, wanted it in 0..{len(rows)}")
    to_emit, lowest_open_at = _native.join_close(
        _bytes(rows), start, stop, until_ms, emission.excluded_flags, emission.ids_below
    )
    return to_emit, lowest_open_at


def close_statuses(
    rows: np.ndarray, statuses: UInt8s, part: tuple[int, int], until_ms: int, emission: EmissionFilter
) -> tuple[Int64s, int | None]:
    """As `close_rows`, for a feedback with [n] `statuses`, which change."""
    start, stop = part
    status, at = statuses[start:stop], rows["at"][start:stop]
    still_open = status & CLOSED == 0
    due = still_open & (at <= until_ms)
    to_emit = due & (status & emission.excluded_flags == 0)
    if emission.ids_below is not None:
        to_emit &= rows["id"][start:stop, 1] < np.uint64(emission.ids_below)
    status[due] |= np.uint8(CLOSED)
    later = at[still_open & ~due]
    return start + np.flatnonzero(to_emit), int(later.min()) if len(later) else None


def sources_of(rows: np.ndarray, chosen: Int64s) -> Source:
    """The sources of the rows [m] int64 `chosen` of [n] HELD."""
    _require_held(rows)
    require_array("chosen", chosen, np.int64, ("m",))
    m = len(chosen)
    if m and not 0 <= chosen.min() <= chosen.max() < len(rows):
        raise InputError(f"chosen: got {chosen.min()}..{chosen.max()}, wanted it in 0..{len(rows) - 1}")
    out = Source(np.empty(m, np.int64), np.empty(m, np.int64), np.empty(m, np.int32), np.empty(m, np.int32))
    _native.join_sources(_bytes(rows), chosen, out.at, out.offset, out.partition, out.row)
    return out


def rows_at(chunks: Sequence[np.ndarray], places: UInt64s) -> np.ndarray:
    """The rows at places.

    Args:
        chunks: [m] HELD each.
        places: [n] uint64: index of the chunk << 32 | row in it.

    Returns:
        [n] HELD, a copy.
    """
    for rows in chunks:
        _require_held(rows)
    require_array("places", places, np.uint64, ("n",))
    if not _native.places_fit(places, np.array([len(rows) for rows in chunks], np.uint64)):
        raise InputError(f"places: got one outside {len(chunks)} chunks")
    out = np.empty(len(places), HELD)
    _native.join_rows_at(places, [_bytes(rows) for rows in chunks], _bytes(out))
    return out


def _require_held(rows: np.ndarray) -> None:
    require_array("rows", rows, HELD, ("n",))


def _bytes(rows: np.ndarray) -> npt.NDArray[Any]:
    return rows.view(np.uint8)
