"""Rows that are trained for few bits: the values that the forward pass reads and serving holds. Wraps
`native/quantizer/rounding`, which documents the grids and their sources.

A row's grid is a function of the row alone, so training, publisher and evaluation of a version compute the same bits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer, require_rows
from pipeline.arrays.types import Bools, Float32s, UInt8s
from pipeline.configuration.model.fields import Quantise
from pipeline.configuration.model.tables import TableConfig
from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import MAX_DIM, decode_rows

_NUMBERS: dict[Quantise, int] = {1: 1, "ternary": 2, 2: 3, 4: 4, 8: 5}
"""By setting, the number of the native rounding; 0 is none."""
UNROUNDED = (0, float("inf"))
"""The native form of no rounding."""
_EIGHT, _FOUR = 8, 4


@dataclass(frozen=True)
class RowRounding:
    """How the rows of a table are rounded in training, and which.

    >>> rounding = RowRounding("ternary")
    >>> rounding.rounded(np.float32([[0.5, -0.6, 0.1]]), np.float32([9])).tolist()
    [[0.5, -0.5, 0.0]]
    """

    quantise: Quantise
    below: float | None = None
    """Only rows whose importance is below this are rounded; None: all."""

    @classmethod
    def of(cls, table: TableConfig) -> "RowRounding | None":
        """That of a table, None if its rows are not rounded."""
        return None if table.quantise is None else cls(table.quantise, table.quantise_below)

    @property
    def native(self) -> tuple[int, float]:
        """The form that the native model input takes."""
        return _NUMBERS[self.quantise], float("inf") if self.below is None else float(np.float32(self.below))

    @property
    def bits(self) -> int:
        """The precision at which rounded rows are published: one byte per weight and an exponent, like its own rows."""
        return _EIGHT if self.quantise == _EIGHT else _FOUR

    def applies(self, importance: Float32s) -> Bools:
        """[n] bool: which rows are rounded, by their importance [n]."""
        require_array("importance", importance, np.float32, ("n",))
        if self.below is None:
            return np.ones(len(importance), np.bool_)
        rounded: Bools = importance < np.float32(self.below)
        return rounded

    def encode(self, weights: Float32s) -> UInt8s:
        """[n, 1 + dim] uint8: the payloads at precision `bits` of rows [n, dim] float32, each contiguous.

        Raises:
            InputError: a wrong dtype or shape, or a weight that is NaN or infinite.
        """
        n, dim = _shape_of(weights)
        payloads = np.empty((n, 1 + dim), np.uint8)
        _native.encode_rounded(weights, _NUMBERS[self.quantise], payloads)
        return payloads

    def rounded(self, weights: Float32s, importance: Float32s) -> Float32s:
        """[n, dim] float32: rows as training reads them. Raises as `encode`."""
        _shape_of(weights)
        rows = np.array(weights, order="C")
        applies = self.applies(importance)
        rows[applies] = decode_rows(self.encode(np.ascontiguousarray(rows[applies])), "step8", rows.shape[1])
        return rows


def as_read(rows: npt.NDArray[Any], rounding: RowRounding | None) -> Float32s:
    """[n, dim] float32: the weights of packed rows as training reads them; each row contiguous."""
    weights: Float32s = rows["weights"]
    return weights if rounding is None else rounding.rounded(weights, np.ascontiguousarray(rows["importance"]))


def _shape_of(weights: Float32s) -> tuple[int, int]:
    if not isinstance(weights, np.ndarray) or weights.ndim != 2:
        raise InputError("weights: got no matrix, wanted float32 [n, dim]")
    n, dim = weights.shape
    require_integer("dim", dim, 1, MAX_DIM)
    require_rows("weights", weights, np.float32, (n, dim))
    finite = np.isfinite(weights).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(f"weights: got one that is not finite in row {row}, wanted finite ones")
    return n, dim
