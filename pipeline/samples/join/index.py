"""Where the impression with this id is held: the Python face of `native/join_index`.

A cache over the join's state and rebuilt from it; it is never stored itself.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.errors import InputError

UInt64s = npt.NDArray[np.uint64]

NONE = np.uint64(2**64 - 1)
"""No place at all."""


class JoinIndex:
    """128-bit ids → uint64 places, which have a bucket's number in their upper 32 bits. Not thread-safe.

    Every method raises InputError for a wrong dtype or shape.

    >>> index = JoinIndex()
    >>> ids = np.array([[1, 2], [3, 4], [1, 2]], np.uint64)
    >>> (index.insert(ids, np.array([10, 20, 30], np.uint64)) == np.array([NONE, NONE, 10])).all()
    np.True_
    """

    def __init__(self) -> None:
        self._core: Any = _native.JoinIndex()

    def reserve(self, n: int) -> None:
        """Make room for `n` ids in all, which then come in without growing the table step by step.

        Raises InputError for an n outside of 0..2^31.
        """
        require_integer("n", n, 0, 2**31)
        self._core.reserve(int(n))

    def insert(self, ids: UInt64s, places: UInt64s) -> UInt64s:
        """Keep places under ids that have none yet.

        Args:
            ids: [n, 2] uint64, as `ids128` gives them.
            places: [n] uint64, none of them NONE.

        Returns:
            [n] uint64: the place kept earlier, which stays (of an id twice in this batch, its first place here), or
            NONE where there was none.
        """
        require_array("ids", ids, np.uint64, ("n", 2))
        require_array("places", places, np.uint64, (len(ids),))
        if (places == NONE).any():
            raise InputError(f"places: got {NONE} at {int(np.argmax(places == NONE))}, wanted less: it means no place")
        out = np.empty(len(ids), np.uint64)
        self._core.insert(ids, places, out)
        return out

    def match(self, ids: UInt64s) -> UInt64s:
        """[n, 2] uint64 ids → [n] uint64 places, NONE for an unknown id. Changes nothing."""
        require_array("ids", ids, np.uint64, ("n", 2))
        out = np.empty(len(ids), np.uint64)
        self._core.match(ids, out)
        return out

    def remove(self, ids: UInt64s) -> int:
        """Forget the ids ([n, 2] uint64); returns how many of them were there."""
        require_array("ids", ids, np.uint64, ("n", 2))
        return int(self._core.remove(ids))

    def remove_bucket(self, bucket: int) -> int:
        """Forget every place whose upper 32 bits are `bucket`; returns how many there were. Searches for nothing.

        Raises InputError for a bucket outside of 0..2^32-1.
        """
        require_integer("bucket", bucket, 0, 2**32 - 1)
        return int(self._core.forget(int(bucket)))

    def __len__(self) -> int:
        return int(self._core.size)

    @property
    def memory_bytes(self) -> int:
        """What slots and entries take."""
        return int(self._core.memory_bytes)
