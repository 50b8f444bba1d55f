"""Ascending integers as LEB128 gaps: the difference to the previous integer, seven bits per byte, lowest bits first.

A byte with the high bit set continues in the next byte. Handles of a dense set take about one byte each. The Python
interface of `native/wire/gaps`.
"""

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import require_array
from pipeline.errors import DamagedError, InputError

UInt64s = npt.NDArray[np.uint64]


def encode_gaps(values: UInt64s) -> bytes:
    """Encode `values`, [n] uint64 in ascending order; equal neighbours are allowed.

    >>> encode_gaps(np.array([3, 4, 300], np.uint64)).hex()
    '0301a802'

    Raises InputError for a wrong dtype, shape or order.
    """
    require_array("values", values, np.uint64, ("n",))
    ascending = values[1:] >= values[:-1]
    if not ascending.all():
        at = int(np.argmin(ascending))
        raise InputError(f"values: got {values[at + 1]} after {values[at]}, wanted ascending order. hint: np.sort")
    encoded: bytes = _native.encode_gaps(values)
    return encoded


def decode_gaps(encoded: bytes) -> UInt64s:
    """Decode to [n] uint64, ascending. Raises DamagedError if the bytes end inside a gap or exceed 64 bits.

    >>> decode_gaps(bytes.fromhex("0301a802")).tolist()
    [3, 4, 300]
    """
    if not isinstance(encoded, bytes):
        raise InputError(f"gaps: got {type(encoded).__name__}, wanted bytes")
    problem, values = _native.decode_gaps(encoded)
    if problem is not None:
        raise DamagedError(f"gaps of {len(encoded)} bytes {problem}. hint: they are damaged or cut off")
    numbers: UInt64s = values
    return numbers
