"""Dense numbers of the model: their values and which of them the model must not read."""

import numpy as np
import pyarrow as pa

from pipeline.arrays.types import Bools, Float32s
from pipeline.configuration.fields import DenseConfig


def dense_numbers(number: DenseConfig, column: pa.Array) -> Float32s:
    """[n] float32; null is 0. A number that is not finite stays so, and halts training.

    >>> dense_numbers(DenseConfig(name="price", column="price"), pa.array([1.5, None])).tolist()
    [1.5, 0.0]
    """
    x = column.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False)
    if number.transform == "log1p":
        x = np.sign(x) * np.log1p(np.abs(x))  # odd, so it is defined below −1
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float32)


def out_of_range(number: DenseConfig, column: pa.Array) -> Bools:
    """[n] whether a value is outside the declared range, or not finite in 32 bits after the transform.

    >>> price = DenseConfig(name="price", column="price", range=(0, 100))
    >>> out_of_range(price, pa.array([0.0, 100.0, None, -1.0, 101.0, float("nan")])).tolist()
    [False, False, False, True, True, True]
    """
    wrong = ~np.isfinite(dense_numbers(number, column))
    return wrong if number.range is None else wrong | outside(column, *number.range)


def outside(column: pa.Array, low: float, high: float) -> Bools:
    """[n] whether a value is not a number from `low` to `high`; null is inside.

    >>> outside(pa.array([0.0, None, 1.5]), 0, 1).tolist()
    [False, False, True]
    """
    values = column.cast(pa.float64(), safe=False).fill_null(low).to_numpy(zero_copy_only=False)
    return np.asarray(~((values >= low) & (values <= high)), np.bool_)
