"""Items by id in rows of arrays that the caller keeps. Wraps `native/recall/item_places`."""

from typing import Any

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array
from pipeline.arrays.types import Float32s, UInt32s, UInt64s
from pipeline.errors import InputError

_SPARE = 1.25
"""Rows are allocated for so many times the items there are."""


class ItemRows:
    """A row of float32 for each item, by id; rows of removed items are reused. Not thread-safe.

    >>> rows = ItemRows()
    >>> rows.put(np.array([7, 8], np.uint64), np.array([[1.0], [2.0]], np.float32))
    >>> rows.take(np.array([8, 8, 7], np.uint64)).tolist()
    [[2.0], [2.0], [1.0]]
    """

    def __init__(self) -> None:
        self._core: Any = _native.ItemPlaces()
        self._rows: Float32s = np.empty((0, 0), np.float32)
        self._used = 0

    def put(self, ids: UInt64s, rows: Float32s) -> None:
        """Insert or replace the rows [n, d] of items; the last one of a repeated id counts."""
        require_array("ids", ids, np.uint64, ("n",))
        require_array("rows", rows, np.float32, (len(ids), "d"))
        places = self._core.put(ids)
        self._used = max(self._used, int(places.max()) + 1) if len(places) else self._used
        self._rows = with_rows(self._rows, places, rows)

    def reserve(self, count: int, width: int) -> None:
        """Make room for `count` more rows of `width` numbers, so that `put` copies no others."""
        self._rows = with_room(self._rows, self._used + count, width)

    def remove(self, ids: UInt64s) -> None:
        """Remove items; unknown ids have no effect."""
        require_array("ids", ids, np.uint64, ("n",))
        self._core.remove(ids)

    def take(self, ids: UInt64s) -> Float32s:
        """[n, d] the rows of items [n]. Raises InputError for an unknown id."""
        require_array("ids", ids, np.uint64, ("n",))
        places = np.empty(len(ids), np.uint32)
        self._core.find(ids, places)
        unknown = places >= len(self._rows)
        if unknown.any():
            raise InputError(f"item {ids[np.argmax(unknown)]} has no row")
        return self._rows[places]


def with_rows(table: Float32s, places: UInt32s, rows: Float32s) -> Float32s:
    """`table` [m, d] with rows [n, d] at places [n]: changed in place, or a longer copy.

    >>> with_rows(np.empty((0, 0), np.float32), np.array([1], np.uint32), np.ones((1, 2), np.float32)).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    if not len(places):
        return table
    table = with_room(table, int(places.max()) + 1, rows.shape[1])
    table[places] = rows
    return table


def with_room(table: Float32s, count: int, width: int) -> Float32s:
    """`table` [m, width] if it has `count` rows, or else a longer copy, with zeros.

    >>> with_room(np.ones((1, 2), np.float32), 2, 2).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    if count <= len(table):
        return table
    grown = np.zeros((int(count * _SPARE), width), np.float32)
    if len(table):
        grown[: len(table)] = table
    return grown
