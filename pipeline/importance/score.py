"""Importance: how much a row matters to the loss, tracked live.

Setting a row w to zero changes the loss by about |⟨g, w⟩|, g its gradient: the first-order Taylor criterion of
Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference" (ICLR 2017, eq. 1) and
"Importance Estimation for Neural Network Pruning" (CVPR 2019, eq. 7), with a row as the group. The native table stores
the sum of these scores, decayed by log time.
"""

import numpy as np

from pipeline.arrays.types import Float32s, Float64s, Int64s, UInt32s, UInt64s


def decayed(importance: Float32s, last_seen_s: UInt32s, at_s: int | UInt32s, half_life_s: float) -> Float64s:
    """Importance as of `at_s`: it halves with each half-life without an occurrence.

    Args:
        importance: [n] float32, as of `last_seen_s`.
        last_seen_s: [n] uint32, log time in seconds since 1970.
        at_s: log time, seconds since 1970; a time before `last_seen_s` decays nothing.
        half_life_s: seconds, > 0.

    Returns:
        [n] float64.

    >>> decayed(np.float32([8, 8]), np.uint32([100, 140]), 120, half_life_s=10)
    array([2., 8.])
    """
    elapsed_s = np.maximum(np.asarray(at_s, np.int64) - last_seen_s.astype(np.int64), 0)
    return importance.astype(np.float64) * np.exp2(-elapsed_s / half_life_s)


def most_important(keys: UInt64s, importance: Float32s, last_seen_s: UInt32s, half_life_s: float, count: int) -> Int64s:
    """The `count` most important rows, most important first, all decayed to one time.

    Among equally important rows the one seen last comes first, then the larger key: the order does not depend on how
    rows are stored.

    Returns:
        [min(count, n)] int64 indices into `keys`.

    >>> most_important(np.uint64([7, 5, 6]), np.float32([1, 3, 2]), np.uint32([9, 9, 9]), half_life_s=60, count=2)
    array([1, 2])
    """
    scores = decayed(importance, last_seen_s, int(last_seen_s.max(initial=0)), half_life_s)
    return np.lexsort((keys, last_seen_s, scores))[::-1][:count]
