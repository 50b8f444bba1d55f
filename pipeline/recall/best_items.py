"""The best of some scored items. Wraps `native/recall/best_of`."""

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import Float32s, UInt32s, UInt64s


def best_items(scores: Float32s, ids: UInt64s, k: int) -> UInt32s:
    """[min(k, n)] uint32: the positions of the highest of scores [n], best first, of equal ones the lower id.

    No score is NaN.

    >>> best_items(np.array([1, 2, 2], np.float32), np.array([5, 9, 7], np.uint64), 2).tolist()
    [2, 1]
    """
    require_array("scores", scores, np.float32, ("n",))
    require_array("ids", ids, np.uint64, (len(scores),))
    require_integer("k", k, 1, 2**24)
    found: UInt32s = _native.best_of(scores, ids, int(k))
    return found
