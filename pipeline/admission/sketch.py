"""Approximate counts of keys in fixed memory, before they are admitted: the Python face of `native/batch/sketch`.

The header there has the byte layout. Admission by count is in `admit.py`.
"""

from typing import Any

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import UInt32s, UInt64s
from pipeline.errors import DamagedError, InputError

MAX_DEPTH = 16
MAX_COUNTERS = 2**28
"""A gigabyte."""


class CountingSketch:
    """A count-min sketch with conservative update. Never estimates too low; not thread-safe.

    Args:
        width: counters per row, at least 1.
        depth: rows, 1..16; memory is 4 × width × depth bytes, at most a gigabyte.
        seed: 0..2^64-1.

    Raises:
        InputError: an argument is out of range, or there is not enough memory.

    >>> sketch = CountingSketch(1024, 4, seed=1)
    >>> sketch.add(np.array([7, 7, 9], np.uint64)).tolist()
    [1, 2, 1]
    """

    def __init__(self, width: int, depth: int, seed: int) -> None:
        require_integer("depth", depth, 1, MAX_DEPTH)
        require_integer("width", width, 1, MAX_COUNTERS // depth)
        require_integer("seed", seed, 0, 2**64 - 1)
        try:
            self._core: Any = _native.CountingSketch(int(width), int(depth), int(seed))
        except MemoryError:
            raise InputError(f"width and depth: got {width} × {depth}, wanted counters that fit into memory") from None

    @property
    def width(self) -> int:
        return int(self._core.width)

    @property
    def depth(self) -> int:
        return int(self._core.depth)

    def add(self, keys: UInt64s, counts: UInt32s | None = None) -> UInt32s:
        """Count keys in order, with the same result as one occurrence at a time.

        Args:
            keys: [n] uint64.
            counts: [n] uint32 occurrences of each; None means one each, 0 only estimates.

        Returns:
            [n] uint32 estimates, each after its own addition.

        Raises:
            InputError: an array has the wrong dtype, shape or order.
        """
        require_array("keys", keys, np.uint64, ("n",))
        if counts is not None:
            require_array("counts", counts, np.uint32, (len(keys),))
        out = np.empty(len(keys), np.uint32)
        self._core.add(keys, counts, out)
        return out

    def halve(self) -> None:
        """Halve every count, rounding down."""
        self._core.halve()

    def digest(self) -> int:
        """XXH64 of shape, seed and counters; equal sketches have equal digests."""
        return int(self._core.digest())

    def to_bytes(self) -> bytes:
        """The complete sketch; zeros are run-length encoded."""
        return bytes(self._core.to_bytes())

    @staticmethod
    def from_bytes(stored: bytes) -> "CountingSketch":
        """The sketch of `to_bytes`. Raises DamagedError for any other bytes."""
        if not isinstance(stored, (bytes, bytearray, memoryview)):
            raise InputError(f"stored: got {type(stored).__name__}, wanted bytes")
        sketch = CountingSketch.__new__(CountingSketch)
        try:
            sketch._core = _native.CountingSketch.from_bytes(bytes(stored))
        except (ValueError, MemoryError):
            reason = "does not match its checksum or format. hint: restore an earlier version"
            raise DamagedError(f"counting sketch of {len(stored)} bytes {reason}") from None
        return sketch
