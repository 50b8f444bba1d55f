"""Weights of a list's elements, from a second list column: which rows have wrong ones, and their values."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.types import Bools, Float32s, Int64s
from pipeline.errors import RowError
from pipeline.features.transforms import flatten

NO_WEIGHTS: Float32s = np.empty(0, np.float32)
"""Every element counts once."""


def no_weights() -> Float32s:
    """`NO_WEIGHTS`, as the default of a dataclass."""
    return NO_WEIGHTS


class WeightsError(RowError):
    """The weights of row `row` do not fit its elements, or one of them is not finite."""


def element_weights(column: pa.Array, lengths: Int64s) -> Float32s:
    """[m] one weight for each element of n rows, of `lengths` elements each; a null list or number counts as ones.

    Raises WeightsError, which names the first wrong row.

    >>> element_weights(pa.array([[0.5, None], None]), np.array([2, 1])).tolist()
    [0.5, 1.0, 1.0]
    """
    wrong = np.flatnonzero(wrong_weights(column, lengths))
    if len(wrong):
        row = int(wrong[0])
        problem = f"got {_shown(column[row].as_py())}, wanted {lengths[row]} finite numbers of 32 bits"
        raise WeightsError(problem, row)
    given = column.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    weights = np.ones(int(lengths.sum()), np.float32)
    weights[np.repeat(given, lengths)] = _numbers(column)
    return weights


def wrong_weights(column: pa.Array, lengths: Int64s) -> Bools:
    """[n] whether a row's list has another length than its elements, or a number that is not finite in 32 bits.

    >>> wrong_weights(pa.array([[0.5], [0.5], None, [1e39], [2]]), np.array([1, 2, 9, 1, 0])).tolist()
    [False, True, False, True, True]
    """
    given = column.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    _, offsets = flatten(column)
    wrong = given & (np.diff(offsets) != lengths)
    bad = np.flatnonzero(~np.isfinite(_numbers(column)))
    wrong[np.searchsorted(offsets, bad, side="right") - 1] = True
    return np.asarray(wrong, np.bool_)


def _numbers(column: pa.Array) -> Float32s:
    elements, _ = flatten(column)
    numbers = pc.fill_null(elements.cast(pa.float64(), safe=False), 1.0).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        return np.asarray(numbers, np.float32)


def _shown(values: list[object]) -> str:
    text = str(values)
    return text if len(text) <= 60 else f"{text[:57]}..."
