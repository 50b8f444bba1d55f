"""The join's typed rows, and what is done on each of them: the Python face of `native/join_rows`.

`HELD` is also how the state file lays impressions out. Decides nothing: flags and times come from the caller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.block import EventBlock, Int32s, Int64s, UInt64s
from pipeline.arrays.checks import require_array
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


@dataclass(frozen=True)
class Source:
    """When and from where n events came: [n] each.

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
        """That of [n] typed rows with these four fields."""
        return cls(*(np.ascontiguousarray(rows[name]) for name in _SOURCE))

    @classmethod
    def joined(cls, parts: Sequence["Source"]) -> "Source":
        """All of one or more parts, in order."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _SOURCE))

    def take(self, index: Int64s) -> "Source":
        """Those at `index`."""
        return Source(*(getattr(self, name).take(index) for name in _SOURCE))


_SOURCE = tuple(field.name for field in fields(Source))


@dataclass(frozen=True)
class Extent:
    """What rows span.

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
    """Which impressions a closed window tells of.

    Attributes:
        excluded_flags: one whose status has any of them is not told of.
        ids_below: nor is one whose id's second half is not below this; None: all are.
    """

    excluded_flags: int
    ids_below: int | None


def held_rows(block: EventBlock, ids: UInt64s, status: npt.NDArray[np.uint8], closed: bool) -> np.ndarray:
    """A block's rows as [n] HELD.

    Args:
        block: n events.
        ids: [n, 2] uint64.
        status: [n] uint8 flags.
        closed: whether their windows are closed already.
    """
    n = len(block)
    require_array("ids", ids, np.uint64, (n, 2))
    columns = {"at": (block.at_ms, np.int64), "offsets": (block.offsets, np.int64), "rows": (block.rows, np.int32)}
    for name, (column, dtype) in columns.items():
        require_array(name, column, dtype, (n,))
    require_array("status", status, np.uint8, (n,))
    out = np.zeros(n, HELD)
    _native.join_fill_held(ids, block.at_ms, block.offsets, block.rows, status, block.partition, closed, _bytes(out))
    return out


def extent_of(rows: np.ndarray) -> Extent:
    """What [n] HELD rows span, n at least 1."""
    _require_held(rows)
    if not len(rows):
        raise InputError("rows: got no rows, wanted at least one")
    lowest, latest, still_open, offsets = _native.join_extent(_bytes(rows))
    return Extent(lowest, latest, still_open, dict(offsets))


def close_rows(
    rows: np.ndarray, part: tuple[int, int], until_ms: int, telling: EmissionFilter
) -> tuple[Int64s, int | None]:
    """Close the open rows of a part with time at most `until_ms`.

    Args:
        rows: [n] HELD; `closed` changes.
        part: its first row, and the one behind its last.
        until_ms: ms.
        telling: which of them to tell of.

    Returns:
        told: [m] int64 numbers of rows that were open until now and are to be told of, ascending.
        lowest_open_at: the lowest time in the part that is still open; None where none is.
    """
    _require_held(rows)
    start, stop = part
    if not 0 <= start <= stop <= len(rows):
        raise InputError(f"part: got {start}..{stop}, wanted it in 0..{len(rows)}")
    told, lowest = _native.join_close(_bytes(rows), start, stop, until_ms, telling.excluded_flags, telling.ids_below)
    return told, lowest


def sources_of(rows: np.ndarray, chosen: Int64s) -> Source:
    """The sources of the rows at [m] int64 `chosen` among [n] HELD."""
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
        places: [n] uint64: number of the chunk << 32 | row in it.

    Returns:
        [n] HELD, a copy.
    """
    for rows in chunks:
        _require_held(rows)
    require_array("places", places, np.uint64, ("n",))
    if not _native.places_fit(places, np.array([len(rows) for rows in chunks], np.uint64)):
        raise InputError(f"places: got one outside of {len(chunks)} chunks")
    out = np.empty(len(places), HELD)
    _native.join_rows_at(places, [_bytes(rows) for rows in chunks], _bytes(out))
    return out


def _require_held(rows: np.ndarray) -> None:
    require_array("rows", rows, HELD, ("n",))


def _bytes(rows: np.ndarray) -> npt.NDArray[Any]:
    return rows.view(np.uint8)
