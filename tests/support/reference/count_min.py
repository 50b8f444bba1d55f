"""A count-min sketch without conservative update (Cormode & Muthukrishnan 2005), with the places of ours; its bound."""

import numpy as np
import pyarrow as pa

from pipeline.admission.sketch import CountingSketch
from pipeline.arrays.keys import hash_column


def plain_estimates(keys: np.ndarray, queried: np.ndarray, width: int, depth: int, seed: int) -> np.ndarray:
    """[u] estimates of `queried` after each of `keys` was counted once."""
    estimates = np.full(len(queried), len(keys), np.int64)
    for row in range(depth):
        counters = np.bincount(_places(keys, width, seed + row), minlength=width)
        estimates = np.minimum(estimates, counters[_places(queried, width, seed + row)])
    return estimates


def estimates_of(sketch: CountingSketch, keys: np.ndarray) -> np.ndarray:
    """[n] the estimates of `keys`; adding no occurrences changes nothing."""
    return sketch.add(keys, np.zeros(len(keys), np.uint32))


def bound(counts: np.ndarray, total: int, threshold: int, width: int, depth: int) -> float:
    """The share of keys with these counts, all below the threshold, that is expected to be estimated at it, at most.

    Theorem 1's argument: by Markov's inequality, the other keys fill the missing t - c in one row with a probability of
    at most (N - c) / (width * (t - c)), and rows are independent.
    """
    one_row = (total - counts) / (width * (threshold - counts))
    return float(np.minimum(1, one_row**depth).mean())


def _places(keys: np.ndarray, width: int, seed: int) -> np.ndarray:
    upper = hash_column(pa.array(keys.view(np.int64)), seed) >> np.uint64(32)
    return ((upper * np.uint64(width)) >> np.uint64(32)).astype(np.int64)
