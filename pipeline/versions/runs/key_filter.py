"""Filters of runs: for which keys a run may have an entry. The face of `native/runs/key_filter`, which has the layout.

A filter takes about ten bits per key; of keys without an entry about one in a hundred passes.
"""

from dataclasses import dataclass

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import call_native, require_array
from pipeline.arrays.types import Bools, UInt8s, UInt64s


@dataclass(frozen=True)
class KeyFilter:
    """A filter; `bytes` uint8 are what a file holds of it. Adding keys is not thread-safe."""

    bytes: UInt8s

    @classmethod
    def of_size(cls, keys: int) -> "KeyFilter":
        """An empty filter for so many keys.

        >>> filter = KeyFilter.of_size(100)
        >>> filter.add(np.uint64([7]))
        >>> filter.may_contain(np.uint64([7, 8])).tolist(), len(filter.bytes)
        ([True, False], 128)
        """
        return cls(np.zeros(_native.filter_bytes(keys), np.uint8))

    def add(self, keys: UInt64s) -> None:
        """Add `keys` [n] uint64."""
        require_array("keys", keys, np.uint64, ("n",))
        call_native(_native.add_keys, self.bytes, keys)

    def may_contain(self, keys: UInt64s) -> Bools:
        """[n] bool: false for a key that was not added. Raises InputError if the bytes are no filter."""
        require_array("keys", keys, np.uint64, ("n",))
        passed = np.empty(len(keys), np.uint8)
        call_native(_native.may_contain, self.bytes, keys, passed)
        return passed.view(np.bool_)
