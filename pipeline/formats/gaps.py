"""Ascending integers as LEB128 gaps: each difference to the one before, seven bits a byte, lowest first.

A byte with the high bit set is followed by another of the same gap. Handles of a dense set cost about one byte each.
The Python face of `native/gaps`.
"""

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import require_array
from pipeline.errors import DamagedError, InputError

UInt64s = npt.NDArray[np.uint64]


def encode_gaps(values: UInt64s) -> bytes:
    """Spell `values`, [n] uint64 in ascending order; equal neighbours are allowed.

    >>> encode_gaps(np.array([3, 4, 300], np.uint64)).hex()
    '0301a802'

    Raises InputError for a wrong dtype, shape or order.
    """
    require_array("values", values, np.uint64, ("n",))
    ascending = values[1:] >= values[:-1]
    if not ascending.all():
        at = int(np.argmin(ascending))
        raise InputError(f"values: got {values[at + 1]} behind {values[at]}, wanted them to ascend. hint: np.sort")
    spelled: bytes = _native.encode_gaps(values)
    return spelled


def decode_gaps(spelled: bytes) -> UInt64s:
    """Read them back: [n] uint64, ascending. Raises DamagedError for bytes that end inside a gap or lead above 64 bits.

    >>> decode_gaps(bytes.fromhex("0301a802")).tolist()
    [3, 4, 300]
    """
    if not isinstance(spelled, bytes):
        raise InputError(f"gaps: got {type(spelled).__name__}, wanted bytes")
    wrong, values = _native.decode_gaps(spelled)
    if wrong is not None:
        raise DamagedError(f"gaps of {len(spelled)} bytes {wrong}. hint: they are damaged or were cut off")
    numbers: UInt64s = values
    return numbers
