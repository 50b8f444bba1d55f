"""Checks of arguments of native calls: C-contiguous NumPy arrays of an exact dtype and shape, integers in a range.

Nothing is converted silently: the error names the dtype and shape given and those wanted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Shape = tuple[int | str, ...]


def require_array(name: str, array: Any, dtype: npt.DTypeLike, shape: Shape) -> None:
    """Raise InputError unless `array` is C-contiguous, of `dtype` and `shape`; a string in `shape` matches any length.

    >>> require_array("keys", np.zeros(3, np.uint64), np.uint64, ("n",))
    >>> require_array("keys", np.zeros(3, np.int64), np.uint64, ("n",))
    Traceback (most recent call last):
    ...
    pipeline.errors.InputError: keys: got int64 [3], wanted uint64 [n]. hint: np.ascontiguousarray
    """
    wanted = np.dtype(dtype)
    if (
        isinstance(array, np.ndarray)
        and array.dtype == wanted
        and array.flags.c_contiguous
        and array.flags.aligned
        and _fits(array.shape, shape)
    ):
        return
    hint = "hint: np.ascontiguousarray"
    raise InputError(f"{name}: got {_describe(array)}, wanted {wanted} {_brackets(shape)}. {hint}")


def require_rows(name: str, array: Any, dtype: npt.DTypeLike, shape: tuple[int, int]) -> None:
    """Like `require_array`, for rows with gaps of whole items between them, such as a field of a structured array.

    >>> packed = np.zeros(3, [("weights", "<f4", 2), ("count", "<u4")])
    >>> require_rows("rows", packed["weights"], np.float32, (3, 2))
    """
    wanted = np.dtype(dtype)
    if isinstance(array, np.ndarray) and array.dtype == wanted and array.shape == shape and array.flags.aligned:
        row_stride, item_stride = array.strides
        if array.size == 0 or (
            item_stride == wanted.itemsize and row_stride >= 0 and row_stride % wanted.itemsize == 0
        ):
            return
    raise InputError(f"{name}: got {_describe(array)}, wanted {wanted} {_brackets(shape)}, each row contiguous")


def require_integer(name: str, number: Any, lowest: int, highest: int) -> None:
    """Raise InputError unless `number` is an int in lowest..highest."""
    if isinstance(number, (int, np.integer)) and not isinstance(number, bool) and lowest <= number <= highest:
        return
    raise InputError(f"{name}: got {number!r}, wanted an integer in {lowest}..{highest}")


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(isinstance(w, str) or s == w for s, w in zip(shape, wanted, strict=True))


def _brackets(shape: Shape) -> str:
    return "[" + ", ".join(str(length) for length in shape) + "]"


def _describe(array: Any) -> str:
    if not isinstance(array, np.ndarray):
        return type(array).__name__
    strided = "" if array.flags.c_contiguous else " not C-contiguous"
    return f"{array.dtype} {_brackets(array.shape)}{strided}"


def call_native(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a native function, whose ValueError becomes an InputError."""
    try:
        return function(*arguments)
    except ValueError as failure:
        raise InputError(str(failure)) from None
