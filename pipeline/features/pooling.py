"""Pooling: the rows of a sample's keys become one vector. The face of `native/batch/pooling`.

Serving calls `pool`; training calls the same native function inside `ModelInput`. Equal rows therefore give equal bytes
in both.
"""

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import Float32s, Int32s, Int64s
from pipeline.errors import InputError


def pool(rows: Float32s, inverse: Int32s, offsets: Int64s, mean: bool, out: Float32s, start: int) -> None:
    """Write each sample's pooled row to its columns of `out`; a sample without keys gets zeros.

    Args:
        rows: [u, dim] float32.
        inverse: [m] int32, values in [0, u): sample i pools the rows `inverse[offsets[i]:offsets[i + 1]]`.
        offsets: [n + 1] int64, ascending from 0 to m.
        mean: divide the sum by the sample's number of keys.
        out: [n, columns] float32; only columns start : start + dim change.
        start: first column.

    Raises:
        InputError: an array has the wrong dtype, shape or order, or does not fit the others; `out` is unchanged.

    >>> out = np.empty((3, 1), np.float32)
    >>> pool(np.float32([[1], [3]]), np.int32([0, 1, 1]), np.int64([0, 2, 2, 3]), True, out, 0)
    >>> out.tolist()
    [[2.0], [0.0], [3.0]]
    """
    require_array("rows", rows, np.float32, ("u", "dim"))
    if not isinstance(mean, bool):
        raise InputError(f"mean: got {mean!r}, wanted True or False")
    require_array("inverse", inverse, np.int32, ("m",))
    require_array("offsets", offsets, np.int64, ("n + 1",))
    if len(offsets) == 0:
        raise InputError("offsets: got none, wanted n + 1 of them")
    require_integer("start", start, 0, 2**31 - 1)
    require_array("out", out, np.float32, (len(offsets) - 1, "columns"))
    if not out.flags.writeable:
        raise InputError("out: got a read-only array, wanted a writable one")
    if np.may_share_memory(rows, out):
        raise InputError("out: got memory of the rows, wanted a separate array")
    try:
        _native.pool(rows, inverse, offsets, mean, out, int(start))
    except ValueError as failure:
        raise InputError(str(failure)) from None
