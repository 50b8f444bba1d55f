"""Pooling: the rows of a sample's keys become one vector, or a sequence. The face of `native/batch/pooling`.

Serving calls `pool`; training calls the same native function inside `ModelInput`. Equal rows therefore give equal bytes
in both.
"""

from dataclasses import dataclass

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import Float32s, Int32s, Int64s
from pipeline.configuration.model.fields import FieldConfig
from pipeline.errors import InputError
from pipeline.features.weights import NO_WEIGHTS


@dataclass(frozen=True)
class Pooling:
    """How a field is pooled; `native/batch/pooling.h` has the formulas."""

    kind: str
    """`sum`, `mean`, `sqrtn`, `max` or `none`."""
    max_length: int = 0
    """`none`: elements of a sequence; else 0."""

    @classmethod
    def of(cls, field: FieldConfig) -> "Pooling":
        return cls(field.pooling, field.max_length or 0)

    def width(self, dim: int) -> int:
        """The columns of the model's input: of a sequence, `max_length` rows and as many numbers of its mask.

        >>> Pooling("sum").width(16), Pooling("none", max_length=3).width(16)
        (16, 51)
        """
        return self.max_length * (dim + 1) if self.kind == "none" else dim


def pool(
    rows: Float32s,
    inverse: Int32s,
    offsets: Int64s,
    pooling: Pooling,
    out: Float32s,
    start: int,
    weights: Float32s = NO_WEIGHTS,
) -> None:
    """Write each sample's pooled row, or its sequence, to its columns of `out`; a sample without keys gets zeros.

    Args:
        rows: [u, dim] float32.
        inverse: [m] int32, values in [0, u): sample i pools the rows `inverse[offsets[i]:offsets[i + 1]]`.
        offsets: [n + 1] int64, ascending from 0 to m.
        pooling: how; a sample has at most `max_length` keys if the kind is `none`.
        out: [n, columns] float32; only the columns start : start + pooling.width(dim) change.
        start: first column.
        weights: [m] float32, or none.

    Raises:
        InputError: an array has the wrong dtype, shape or order, or does not fit the others; `out` is unchanged.

    >>> out = np.empty((3, 1), np.float32)
    >>> pool(np.float32([[1], [3]]), np.int32([0, 1, 1]), np.int64([0, 2, 2, 3]), Pooling("mean"), out, 0)
    >>> out.tolist()
    [[2.0], [0.0], [3.0]]
    """
    require_array("rows", rows, np.float32, ("u", "dim"))
    require_array("inverse", inverse, np.int32, ("m",))
    require_array("offsets", offsets, np.int64, ("n + 1",))
    if len(offsets) == 0:
        raise InputError("offsets: got none, wanted n + 1 of them")
    require_array("weights", weights, np.float32, ("m or 0",))
    require_integer("start", start, 0, 2**31 - 1)
    require_array("out", out, np.float32, (len(offsets) - 1, "columns"))
    if not out.flags.writeable:
        raise InputError("out: got a read-only array, wanted a writable one")
    if np.may_share_memory(rows, out):
        raise InputError("out: got memory of the rows, wanted a separate array")
    try:
        _native.pool(rows, inverse, offsets, weights, pooling.kind, pooling.max_length, out, int(start))
    except ValueError as failure:
        raise InputError(str(failure)) from None
