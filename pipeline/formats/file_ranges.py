"""Reads many ranges of a file at once: the face of `native/runs/file_ranges`."""

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import call_native, require_array
from pipeline.arrays.types import UInt8s, UInt32s, UInt64s


def read_ranges(descriptor: int, offsets: UInt64s, lengths: UInt32s) -> UInt8s:
    """The bytes of ranges [n], one after another; zeros beyond the end of the file.

    The system is asked for all of them before the first is waited for. Raises InputError if it cannot read.
    """
    require_array("offsets", offsets, np.uint64, ("n",))
    require_array("lengths", lengths, np.uint32, (len(offsets),))
    out = np.empty(int(lengths.sum(dtype=np.int64)), np.uint8)
    call_native(_native.read_ranges, descriptor, offsets, lengths, out)
    return out
