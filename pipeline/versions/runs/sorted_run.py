"""A sorted run: values by key, ascending, in blocks that are read and verified one by one. The face of the native code.

A run is a change of a map: an entry puts a value or removes its key. Of several runs, the newest that has an entry for
a key decides, so merging is associative. The layout is in `native/runs/sorted_run.h`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import call_native, require_array
from pipeline.arrays.types import UInt8s, UInt32s, UInt64s

BLOCK = np.dtype([
    ("first_key", "<u8"), ("offset", "<u8"), ("bytes", "<u4"), ("entries", "<u4"), ("checksum", "<u8"),
])  # fmt: skip
"""An entry of the index: the place of a block in its run, and what it must hold. 32 bytes."""

Blocks = npt.NDArray[np.void]

BLOCK_BYTES = 4096
"""A block is closed once it has so many bytes: a row is then read with one or two pages of the disk."""

LAST_KEY = 2**64 - 1

NO_ENTRY, VALUE, REMOVAL = 0, 1, 2
"""What a run has for a key."""


@dataclass(frozen=True)
class SortedRun:
    """Consecutive blocks of a run in memory: their bytes (uint8), and the entries of the index for them (`BLOCK`)."""

    bytes: UInt8s
    blocks: Blocks

    @property
    def index(self) -> UInt8s:
        """The index as bytes."""
        return np.ascontiguousarray(self.blocks).view(np.uint8)

    @classmethod
    def empty(cls) -> "SortedRun":
        return cls(np.empty(0, np.uint8), np.empty(0, BLOCK))


@dataclass(frozen=True)
class RunArrays:
    """The entries of a run as arrays.

    Attributes:
        keys: [n] uint64, ascending, keys with a value.
        removed: [r] uint64, ascending, keys that are removed.
        columns: [n, width] uint8 each: the parts of fixed size that a value begins with.
        rest: uint8, the remaining parts of all values, concatenated.
        rest_bytes: [n] uint32, the size of each; empty if no value has one.
    """

    keys: UInt64s
    removed: UInt64s
    columns: tuple[UInt8s, ...]
    rest: UInt8s = field(default_factory=lambda: np.empty(0, np.uint8))
    rest_bytes: UInt32s = field(default_factory=lambda: np.empty(0, np.uint32))


def encode_run(arrays: RunArrays) -> SortedRun:
    """Encode entries; a key that is also removed is put.

    Raises InputError if keys do not ascend, or a value has more than 65,534 bytes.
    """
    n = len(arrays.keys)
    require_array("keys", arrays.keys, np.uint64, (n,))
    require_array("removed", arrays.removed, np.uint64, ("r",))
    for column in arrays.columns:
        require_array("column", column, np.uint8, (n, column.shape[-1]))
    rest_bytes = arrays.rest_bytes
    require_array("rest_bytes", rest_bytes, np.uint32, (n if len(rest_bytes) else 0,))
    require_array("rest", arrays.rest, np.uint8, (int(rest_bytes.sum(dtype=np.int64)),))
    content, blocks = call_native(
        _native.encode_run, arrays.keys, arrays.removed, list(arrays.columns), arrays.rest, rest_bytes, BLOCK_BYTES
    )
    return SortedRun(content, blocks.view(BLOCK))


def decode_run(run: SortedRun, widths: Sequence[int], with_rest: bool = False) -> RunArrays:
    """The entries of a run whose values begin with columns of `widths` bytes.

    Raises InputError if a block is damaged, or a value has not the size of its columns (`with_rest`: at least).
    """
    keys, removed, columns, rest, rest_bytes = call_native(
        _native.decode_run, run.bytes, run.index, [int(width) for width in widths], with_rest
    )
    shaped = tuple(column.reshape(len(keys), width) for column, width in zip(columns, widths, strict=True))
    return RunArrays(keys, removed, shaped, rest, rest_bytes)


def merge_runs(
    runs: Sequence[SortedRun], keep_removed: bool, *, first: int = 0, last: int = LAST_KEY, offset: int = 0
) -> SortedRun:
    """The entries of `runs`, oldest first, with a key from `first` to `last`.

    Without `keep_removed` removals are left out: the result then is a whole map, not a change of one. `offset` is that
    of its first block in its run.

    Raises InputError if a block is damaged.
    """
    content, blocks = call_native(
        _native.merge_runs, [run.bytes for run in runs], [run.index for run in runs], first, last, keep_removed,
        BLOCK_BYTES, offset,
    )  # fmt: skip
    return SortedRun(content, blocks.view(BLOCK))


def run_keys(run: SortedRun) -> UInt64s:
    """[n] uint64: the keys of a run, removed ones too, ascending. Raises InputError if a block is damaged."""
    keys: UInt64s = call_native(_native.run_keys, run.bytes, run.index)
    return keys
