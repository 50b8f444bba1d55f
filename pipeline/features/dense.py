"""Dense numbers of the model: their values and which of them the model must not read."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.types import Bools, Float32s, Float64s
from pipeline.configuration.model.fields import DenseConfig
from pipeline.errors import RowError
from pipeline.features.transforms import lengths_of


class SizeError(RowError):
    """The vector of row `row` has another size than the configuration declares; the message lacks the row."""


def dense_numbers(number: DenseConfig, column: pa.Array) -> Float32s:
    """[n, width] float32; null is 0. A number that is not finite stays so, and halts training.

    Raises SizeError for a vector of another size.

    >>> dense_numbers(DenseConfig(name="price", column="price"), pa.array([1.5, None])).tolist()
    [[1.5], [0.0]]
    >>> dense_numbers(DenseConfig(name="place", column="place", size=2), pa.array([[1.5, None], None])).tolist()
    [[1.5, 0.0], [0.0, 0.0]]
    """
    x = _numbers(column)[:, None] if number.size is None else _vectors(number, column)
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
    wrong = wrong_size(number, column)
    if wrong.any():
        column = pc.if_else(pa.array(wrong), pa.nulls(len(column), column.type), column)
    wrong = wrong | ~np.isfinite(dense_numbers(number, column)).all(axis=1)
    if number.range is None:
        return wrong
    elements = column if number.size is None else column.flatten()
    beyond = outside(elements, *number.range)
    if number.size is not None:
        beyond = np.bincount(np.repeat(np.arange(len(column)), lengths_of(column)), beyond, len(column)) > 0
    return np.asarray(wrong | beyond, np.bool_)


def wrong_size(number: DenseConfig, column: pa.Array) -> Bools:
    """[n] whether a vector has another size than declared; null has it.

    >>> wrong_size(DenseConfig(name="place", column="place", size=2), pa.array([[1.5, 2.0], None, []])).tolist()
    [False, False, True]
    """
    if number.size is None:
        return np.zeros(len(column), np.bool_)
    lengths = pc.list_value_length(column).fill_null(number.size).to_numpy(zero_copy_only=False)
    return np.asarray(lengths != number.size, np.bool_)


def check_sizes(number: DenseConfig, column: pa.Array) -> None:
    """Raise SizeError for the first vector of another size than declared."""
    wrong = np.flatnonzero(wrong_size(number, column))
    if len(wrong):
        row = int(wrong[0])
        got = f"column {number.column}: got {len(column[row])} numbers"
        raise SizeError(f"{got}, dense {number.name} has size {number.size}", row)


def outside(column: pa.Array, low: float, high: float) -> Bools:
    """[n] whether a value is not a number from `low` to `high`; null is inside.

    >>> outside(pa.array([0.0, None, 1.5]), 0, 1).tolist()
    [False, False, True]
    """
    values = column.cast(pa.float64(), safe=False).fill_null(low).to_numpy(zero_copy_only=False)
    return np.asarray(~((values >= low) & (values <= high)), np.bool_)


def _numbers(column: pa.Array) -> Float64s:
    # Every call of Arrow gives up the interpreter, and a busy replica waits to get it back.
    numbers = column if column.type == pa.float64() else column.cast(pa.float64(), safe=False)
    present = numbers.fill_null(0.0) if numbers.null_count else numbers
    return np.asarray(present.to_numpy(zero_copy_only=False), np.float64)


def _vectors(number: DenseConfig, column: pa.Array) -> Float64s:
    check_sizes(number, column)
    vectors = np.zeros((len(column), number.width))
    present = column.is_valid().to_numpy(zero_copy_only=False)
    vectors[present] = _numbers(column.flatten()).reshape(-1, number.width)
    return vectors
