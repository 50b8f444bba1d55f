"""Pooling and its transpose in NumPy, in single precision and in the order of the samples: equal to ours to the bit."""

import itertools

import numpy as np
import numpy.typing as npt

from pipeline.features.pooling import Pooling

Float32s = npt.NDArray[np.float32]


def divisor(kind: str, n: int) -> np.float32:
    """What the sum of n rows is divided by."""
    return {"mean": np.float32(n), "sqrtn": np.sqrt(np.float32(n))}.get(kind, np.float32(1))


def pooled(rows: Float32s, offsets: npt.NDArray[np.int64], pooling: Pooling) -> Float32s:
    """[n, width] each sample's rows, without weights; rows: [m, dim], offsets: [n + 1]."""
    dim, length = rows.shape[1], pooling.max_length
    out = np.zeros((len(offsets) - 1, pooling.width(dim)), np.float32)
    for i, (first, end) in enumerate(itertools.pairwise(offsets)):
        if pooling.kind == "none":
            out[i, : (end - first) * dim] = rows[first:end].ravel()
            out[i, length * dim : length * dim + end - first] = 1
            continue
        if first < end:
            out[i] = rows[first]
        for row in rows[first + 1 : end]:
            out[i] = np.maximum(out[i], row) if pooling.kind == "max" else out[i] + row
        if first < end:
            out[i] /= divisor(pooling.kind, end - first)
    return out


def unpooled(
    gradient: Float32s, rows: Float32s, inverse: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], pooling: Pooling
) -> Float32s:
    """[u, dim] the gradient [n, width] of the pooled rows [u, dim], summed over each key's occurrences."""
    sums, dim = np.zeros_like(rows), rows.shape[1]
    for i, (first, end) in enumerate(itertools.pairwise(offsets)):
        largest = rows[inverse[first:end]].argmax(axis=0) if first < end else None
        for e, k in enumerate(inverse[first:end]):
            if pooling.kind == "none":
                sums[k] += gradient[i, e * dim : (e + 1) * dim]
            elif pooling.kind == "max":
                sums[k] += np.where(largest == e, gradient[i], np.float32(0))
            else:
                sums[k] += gradient[i] / divisor(pooling.kind, end - first)
    return sums
