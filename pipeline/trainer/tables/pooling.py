"""Pooling, the face of the native functions: from a batch's keys to one vector per sample and field, and back.

keys        [m]       a field's keys, sample i those in offsets[i] : offsets[i + 1]
  unique     → [u] distinct keys, inverse [m], counts [u]
rows        [u, dim]  what the table holds of the distinct keys
  pool       → out[:, start : start + dim], sum or mean over each sample's keys
gradient    [n, columns]
  unpool     → [u, dim], the exact transpose of pool
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.errors import InputError

Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]


def pool(rows: Float32s, inverse: Int32s, offsets: Int64s, mean: bool, out: Float32s, start: int) -> None:
    """Write each sample's pooled row to its columns of `out`; a sample without keys gets zeros.

    Args:
        rows: [u, dim] float32.
        inverse: [m] int32, values in [0, u).
        offsets: [n + 1] int64, ascending from 0 to m.
        mean: divide the sum by the sample's number of keys.
        out: [n, columns] float32; only columns start : start + dim change.
        start: first column.

    Raises:
        InputError: an array has the wrong dtype, shape or order, or does not fit the others; `out` is unchanged.
    """
    require_array("rows", rows, np.float32, ("u", "dim"))
    _check_samples(inverse, offsets, mean, start)
    require_array("out", out, np.float32, (len(offsets) - 1, "columns"))
    if not out.flags.writeable:
        raise InputError("out: got a read-only array, wanted a writable one")
    if np.may_share_memory(rows, out):
        raise InputError("out: got memory of the rows, wanted an array of its own")
    _call(_native.pool, rows, inverse, offsets, mean, out, int(start))


def unpool(gradient: Float32s, start: int, dim: int, inverse: Int32s, offsets: Int64s, mean: bool, u: int) -> Float32s:
    """What the gradient of the pooled columns says of each distinct key: the transpose of `pool`.

    Args:
        gradient: [n, columns] float32, of which columns start : start + dim count.
        start: first column.
        dim: weights per row.
        inverse: [m] int32, values in [0, u).
        offsets: [n + 1] int64, ascending from 0 to m.
        mean: as in `pool`.
        u: number of distinct keys.

    Returns:
        [u, dim] float32, summed over a key's occurrences in the order of the samples.

    Raises:
        InputError: an array has the wrong dtype, shape or order, or does not fit the others.
    """
    _check_samples(inverse, offsets, mean, start)
    require_array("gradient", gradient, np.float32, (len(offsets) - 1, "columns"))
    require_integer("dim", dim, 1, 2**31 - 1)
    require_integer("u", u, 0, 2**31 - 1)
    try:
        rows = np.empty((u, dim), np.float32)
    except (MemoryError, ValueError):
        raise InputError(f"u and dim: got {u} × {dim}, wanted a gradient that fits into memory") from None
    _call(_native.unpool, gradient, int(start), inverse, offsets, mean, rows)
    return rows


def _check_samples(inverse: Int32s, offsets: Int64s, mean: bool, start: int) -> None:
    if not isinstance(mean, bool):
        raise InputError(f"mean: got {mean!r}, wanted True or False")
    require_array("inverse", inverse, np.int32, ("m",))
    require_array("offsets", offsets, np.int64, ("n + 1",))
    if len(offsets) == 0:
        raise InputError("offsets: got none, wanted n + 1 of them")
    require_integer("start", start, 0, 2**31 - 1)


def _call(function: Callable[..., None], *arguments: Any) -> None:
    try:
        function(*arguments)
    except ValueError as failure:
        raise InputError(str(failure)) from None
