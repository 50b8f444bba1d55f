"""Rows as integers, by their curvature: what sending each is worth, what it costs, and its bytes.

With loss ≈ ½ h ‖e‖², e the error of a row in serving and h its curvature (`table/statistics.h`), a row is worth what
sending it takes off that loss. Its step is the power of two nearest to √(unit / h), its precision (4, 8 or 16 bits) the
least that its integers fit. Wraps `native/serving/sent_rows`.
"""

from typing import Any, NamedTuple

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer, require_rows
from pipeline.arrays.types import Bools, Float32s, Int8s, UInt8s
from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import MAX_DIM, PRECISIONS

SKIP = 0
"""The precision of a row that is not sent."""

_IS_PRECISION = np.isin(np.arange(256), (SKIP, *PRECISIONS))


class ServedRows(NamedTuple):
    """What serving holds of n keys.

    Attributes:
        weights: [n, dim] float32; zeros for a key that serving does not hold.
        bits: [n] uint8, 0 for such a key.
        exponents: [n] int8, of rows of integers.
    """

    weights: Float32s
    bits: UInt8s
    exponents: Int8s

    def where(self, chosen: Bools) -> "ServedRows":
        """Those of the chosen keys, [n] bool."""
        return ServedRows(self.weights[chosen], self.bits[chosen], self.exponents[chosen])


class RowScores(NamedTuple):
    """What sending n rows is worth; losses are summed over samples, as the curvature is.

    Attributes:
        improves: [n] bool, whether serving comes closer to the row.
        worth: [n] float32, the loss that this takes off; 0 if it does not.
        cost_bytes: [n] float32, an estimate.
        missing: [n] float32, the loss if serving did not hold the row.
        error: [n] float32, the loss by what serving holds.
    """

    improves: Bools
    worth: Float32s
    cost_bytes: Float32s
    missing: Float32s
    error: Float32s

    @classmethod
    def empty(cls, n: int) -> "RowScores":
        """Of n rows, to be filled."""
        return cls(np.empty(n, np.bool_), *(np.empty(n, np.float32) for _ in cls._fields[1:]))


def score_rows(weights: Float32s, served: ServedRows, curvature: Float32s, unit: float) -> RowScores:
    """What sending each of n rows is worth.

    A row keeps the step of its served value until the wanted one is off by more than a factor of two.

    Args:
        weights: [n, dim] float32, finite; the rows need not be adjacent in memory, like the weights inside packed rows.
        served: what serving holds of them.
        curvature: [n] float32, not negative.
        unit: the square of a row's step times its curvature; 0 for the finest steps.

    Raises:
        InputError: a wrong dtype, shape, number or precision, or a weight that is NaN or infinite.
    """
    _require(weights, served, curvature, unit)
    scores = RowScores.empty(len(curvature))
    _require_finite(_native.score_rows(weights, *served, curvature, float(unit), *scores), len(curvature))
    return scores


def quantize(weights: Float32s, served: ServedRows, curvature: Float32s, unit: float) -> tuple[UInt8s, UInt8s]:
    """The bytes of each of n rows, or SKIP for one that serving holds and would not come closer to.

    Args and errors are those of `score_rows`.

    Returns:
        bits: [n] uint8 of 0 (SKIP), 4, 8, 16.
        payload: uint8, the payloads of the rows not skipped, concatenated.
    """
    _require(weights, served, curvature, unit)
    bits = np.empty(len(curvature), np.uint8)
    finite, payload = _native.encode_sent(weights, *served, curvature, float(unit), bits)
    _require_finite(finite, len(curvature))
    return bits, payload


def _require(weights: Float32s, served: ServedRows, curvature: Any, unit: float) -> None:
    require_array("served", served.weights, np.float32, ("n", "dim"))
    n, dim = served.weights.shape
    require_integer("dim", dim, 1, MAX_DIM)
    require_rows("weights", weights, np.float32, (n, dim))
    require_array("served_bits", served.bits, np.uint8, (n,))
    if not _IS_PRECISION[served.bits].all():
        wrong = served.bits[int(np.argmin(_IS_PRECISION[served.bits]))]
        raise InputError(f"served_bits: got {wrong}, wanted {SKIP} or one of {PRECISIONS}")
    require_array("served_exponents", served.exponents, np.int8, (n,))
    require_array("curvature", curvature, np.float32, (n,))
    if not (curvature >= 0).all():
        raise InputError(f"curvature: got {curvature[int(np.argmin(curvature >= 0))]}, wanted numbers >= 0")
    if not unit >= 0:
        raise InputError(f"unit: got {unit}, wanted a number >= 0")


def _require_finite(finite: int, n: int) -> None:
    if finite < n:
        raise InputError(f"weights: got one that is not finite in row {finite}, wanted finite ones")
