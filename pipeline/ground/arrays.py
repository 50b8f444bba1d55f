"""The check every face of the native core makes first: dtype, shape and order of an array, before C++ sees it.

It converts nothing: an array that has to be copied to fit is a mistake of the caller, and is named as one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.ground.errors import InputError


def check_array(name: str, array: Any, dtype: npt.DTypeLike, shape: Sequence[int | None]) -> None:
    """Raise InputError unless `array` is a C-contiguous NumPy array of `dtype` and `shape`; None fits any length.

    >>> check_array("keys", np.zeros(3, np.uint64), np.uint64, [None])
    >>> check_array("keys", np.zeros(3, np.int64), np.uint64, [None])
    Traceback (most recent call last):
        ...
    pipeline.ground.errors.InputError: keys: got int64[3], wanted uint64[n]
    """
    wanted = f"{_dtype_name(np.dtype(dtype))}[{', '.join('n' if n is None else str(n) for n in shape)}]"
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name}: got {type(array).__name__}, wanted a NumPy array {wanted}")
    fits = array.ndim == len(shape) and all(w is None or w == g for w, g in zip(shape, array.shape, strict=True))
    if array.dtype != np.dtype(dtype) or not fits:
        got = f"{_dtype_name(array.dtype)}[{', '.join(map(str, array.shape))}]"
        raise InputError(f"{name}: got {got}, wanted {wanted}")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise InputError(f"{name}: got strides {array.strides}, wanted C order. hint: numpy.ascontiguousarray")


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.names is None else f"({', '.join(dtype.names)})"
