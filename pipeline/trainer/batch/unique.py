"""The distinct keys of a batch: the face of `native/batch/unique`."""

from typing import Any

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import Int32s, UInt32s, UInt64s


class Uniquer:
    """Finds distinct keys and reuses its hash table from batch to batch. Not thread-safe."""

    def __init__(self) -> None:
        self._core: Any = _native.Uniquer()

    def unique(self, keys: UInt64s) -> tuple[UInt64s, Int32s, UInt32s]:
        """The distinct keys in order of first appearance.

        Args:
            keys: [m] uint64, fewer than 2^31.

        Returns:
            (distinct [u] uint64, inverse [m] int32 with keys == distinct[inverse], counts [u] uint32).

        Raises:
            InputError: `keys` is no C-contiguous uint64 vector of fewer than 2^31.

        >>> Uniquer().unique(np.uint64([9, 4, 9]))
        (array([9, 4], dtype=uint64), array([0, 1, 0], dtype=int32), array([2, 1], dtype=uint32))
        """
        require_array("keys", keys, np.uint64, ("m",))
        require_integer("number of keys", len(keys), 0, 2**31 - 1)
        m = len(keys)
        distinct, inverse, counts = np.empty(m, np.uint64), np.empty(m, np.int32), np.empty(m, np.uint32)
        u = self._core.unique(keys, distinct, inverse, counts)
        return distinct[:u], inverse, counts[:u]
