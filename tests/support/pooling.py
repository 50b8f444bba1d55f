"""Pooling and its transpose in NumPy, in single precision and in the order of the samples: equal to ours to the bit."""

import itertools

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]


def pooled(rows: Float32s, offsets: npt.NDArray[np.int64], mean: bool) -> Float32s:
    """[n, dim] sum or mean of each sample's rows; rows: [m, dim], offsets: [n + 1]."""
    out = np.zeros((len(offsets) - 1, rows.shape[1]), np.float32)
    for i, (first, end) in enumerate(itertools.pairwise(offsets)):
        if first < end:
            out[i] = rows[first]
        for row in rows[first + 1 : end]:
            out[i] += row
        if mean and end - first > 1:
            out[i] /= np.float32(end - first)
    return out


def unpooled(
    gradient: Float32s, inverse: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], mean: bool, u: int
) -> Float32s:
    """[u, dim] the gradient [n, dim] of the pooled rows, summed over each key's occurrences."""
    sums = np.zeros((u, gradient.shape[1]), np.float32)
    for i, (first, end) in enumerate(itertools.pairwise(offsets)):
        for k in inverse[first:end]:
            sums[k] += gradient[i] / np.float32(end - first) if mean and end - first > 1 else gradient[i]
    return sums
