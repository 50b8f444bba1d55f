"""The index from an impression's id to its place; the Python interface of `native/join/join_index`.

It is rebuilt from the join's state and never stored.
"""

from typing import Any

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import UInt64s
from pipeline.errors import InputError

NONE = np.uint64(2**64 - 1)
"""The result for an unknown id; not a valid place."""


class JoinIndex:
    """128-bit ids → uint64 places, which contain a bucket's number in their upper 32 bits. Not thread-safe.

    Every method raises InputError for a wrong dtype or shape.

    >>> index = JoinIndex()
    >>> ids = np.array([[1, 2], [3, 4], [1, 2]], np.uint64)
    >>> (index.insert(ids, np.array([10, 20, 30], np.uint64)) == np.array([NONE, NONE, 10])).all()
    np.True_
    """

    def __init__(self) -> None:
        self._core: Any = _native.JoinIndex()

    def reserve(self, n: int) -> None:
        """Allocate for `n` ids in all, so that inserting them does not grow the table step by step.

        Raises InputError for an n outside of 0..2^31.
        """
        require_integer("n", n, 0, 2**31)
        self._core.reserve(int(n))

    def insert(self, ids: UInt64s, places: UInt64s) -> UInt64s:
        """Store the places of ids that have none yet.

        Args:
            ids: [n, 2] uint64, as `ids128` returns them.
            places: [n] uint64, without NONE.

        Returns:
            [n] uint64: the place stored earlier, which is unchanged (for an id repeated in the batch, its first place
            there), or NONE if there was none.
        """
        require_array("ids", ids, np.uint64, ("n", 2))
        require_array("places", places, np.uint64, (len(ids),))
        if (places == NONE).any():
            raise InputError(f"places: got {NONE} at {int(np.argmax(places == NONE))}, wanted less: it means no place")
        out = np.empty(len(ids), np.uint64)
        self._core.insert(ids, places, out)
        return out

    def match(self, ids: UInt64s) -> UInt64s:
        """[n, 2] uint64 ids → [n] uint64 places, NONE for an unknown id."""
        require_array("ids", ids, np.uint64, ("n", 2))
        out = np.empty(len(ids), np.uint64)
        self._core.match(ids, out)
        return out

    def remove(self, ids: UInt64s) -> int:
        """Remove the ids ([n, 2] uint64); returns the number removed."""
        require_array("ids", ids, np.uint64, ("n", 2))
        return int(self._core.remove(ids))

    def remove_bucket(self, bucket: int) -> int:
        """Remove every place whose upper 32 bits are `bucket`; returns the number removed. O(1).

        Raises InputError for a bucket outside of 0..2^32-1.
        """
        require_integer("bucket", bucket, 0, 2**32 - 1)
        return int(self._core.remove_bucket(int(bucket)))

    def __len__(self) -> int:
        return int(self._core.size)

    @property
    def memory_bytes(self) -> int:
        """Memory of slots and entries."""
        return int(self._core.memory_bytes)
