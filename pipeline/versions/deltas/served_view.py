"""The rows that serving holds of one table: payloads and handles by key. Wraps `native/serving/served_view`.

The publisher holds one to compute what serving lacks; a replica serves lookups from one. A missing key gives zeros,
never an error.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer, require_rows
from pipeline.arrays.types import Bools, Float32s, Int8s, UInt8s, UInt32s, UInt64s
from pipeline.errors import InputError
from pipeline.versions.deltas.coded_rows import ChangedRows, require_changed_rows
from pipeline.versions.deltas.quantizer import MAX_DIM, payload_total
from pipeline.versions.state import FieldChange, ServedEntries

NO_HANDLE = np.uint32(2**32 - 1)
"""The handle of a key that has none."""


@dataclass(frozen=True)
class Distance:
    """The distance between n rows and their served values.

    Attributes:
        moved: [n] float32, ‖row − served‖.
        length: [n] float32, ‖row‖.
        bits: [n] uint8, precision of the served value; 0 for a missing key.
        differs: [n] bool, whether any weight differs.
    """

    moved: Float32s
    length: Float32s
    bits: UInt8s
    differs: Bools


@dataclass(frozen=True)
class StagedRows:
    """A change that fits a view: what `apply` needs, and `digest`, that of the view afterwards."""

    core: Any
    digest: int


class ServedView:
    """Quantized rows of one table. Thread-safe for many readers and one writer; each call sees one consistent state.

    Every method raises InputError for a wrong dtype or shape.

    >>> view = ServedView(dim=1)
    >>> view.put(np.array([7], np.uint64), np.array([0], np.uint32), np.array([32], np.uint8), np.zeros(4, np.uint8))
    >>> view.bits(np.array([7, 8], np.uint64)).tolist()
    [32, 0]
    """

    def __init__(self, dim: int, *, by_handle: bool = True) -> None:
        """An empty view of rows of `dim` weights.

        Args:
            dim: weights per row.
            by_handle: maintain an index by handle, 4.25 bytes per row. Without it `keys_of` scans all rows, and `put`
                detects a conflicting handle only between new keys of one batch; that is enough for the publisher,
                which assigns the handles.
        """
        require_integer("dim", dim, 1, MAX_DIM)
        self.dim = int(dim)
        self._core: Any = _native.ServedView(self.dim, by_handle)

    @classmethod
    def of(cls, change: FieldChange) -> "ServedView":
        """What serving holds of a table of a complete version, without an index by handle."""
        view = cls(change.dim, by_handle=False)
        view.put(change.served_keys, change.served_handles, change.served_bits, change.served_payload)
        return view

    def put(self, keys: UInt64s, handles: UInt32s, bits: UInt8s, payload: UInt8s) -> None:
        """Insert or replace rows; for a key that occurs twice in the batch, the last one counts.

        Args:
            keys: [n] uint64.
            handles: [n] uint32, NO_HANDLE for none.
            bits: [n] uint8, precisions.
            payload: [total] uint8, as `quantizer.encode` returns it, in the order of the keys.

        Raises:
            InputError: also for a handle of another key. The view is unchanged.
        """
        self._require_rows(keys, handles, bits, payload)
        _refuse_conflict(int(self._core.put(keys, handles, bits, payload)), keys, handles)

    def stage(self, rows: ChangedRows) -> "StagedRows":
        """A change as `apply` needs it, and the digest that it leads to; the view stays unchanged.

        Removed keys come first, then the rows; of a key that occurs twice the last one counts. Whether a new row has
        the handle of another key in the view is left to `apply`. Requires an index by handle.

        Raises:
            InputError: also for a handle that the view does not know, for a difference to a row of floats or of another
                precision, and for two keys of the change with one handle.
        """
        require_changed_rows(rows, self.dim)
        staged = self._core.stage(*rows)
        if staged.defect != _native.StageDefect.NONE:
            raise InputError(self._defect_of(rows, staged))
        return StagedRows(staged, int(staged.digest))

    def apply(self, staged: "StagedRows") -> None:
        """Apply a change that `stage` of this view returned.

        Raises InputError, with no row stored, if the view has changed since, or a handle belongs to another key.
        """
        if not self._core.apply(staged.core):
            raise InputError(
                "the view has changed since the rows were staged, or has their handles, wanted neither. "
                "hint: stage them again"
            )

    def remove(self, keys: UInt64s) -> int:
        """Remove keys and their handles; returns how many of the keys existed."""
        require_array("keys", keys, np.uint64, ("n",))
        return int(self._core.remove(keys))

    def decode(self, keys: UInt64s) -> Float32s:
        """[n] uint64 → [n, dim] float32; zeros for a missing key."""
        require_array("keys", keys, np.uint64, ("n",))
        rows = np.empty((len(keys), self.dim), np.float32)
        self._core.decode(keys, rows)
        return rows

    def compare(self, keys: UInt64s, rows: Float32s) -> Distance:
        """The distance of rows from the served values of their keys; zeros are the served value of a missing key.

        Args:
            keys: [n] uint64.
            rows: [n, dim] float32; the rows need not be adjacent in memory, like the weights inside packed rows.
        """
        require_array("keys", keys, np.uint64, ("n",))
        require_rows("rows", rows, np.float32, (len(keys), self.dim))
        n = len(keys)
        moved, length = np.empty(n, np.float32), np.empty(n, np.float32)
        distance = Distance(moved, length, np.empty(n, np.uint8), np.empty(n, np.bool_))
        self._core.compare(keys, rows, moved, length, distance.bits, distance.differs)
        return distance

    def lookup(self, keys: UInt64s) -> tuple[Float32s, UInt8s, UInt32s]:
        """`decode`, `bits` and `handles` of the same keys in one index lookup."""
        require_array("keys", keys, np.uint64, ("n",))
        n = len(keys)
        rows, bits, handles = np.empty((n, self.dim), np.float32), np.empty(n, np.uint8), np.empty(n, np.uint32)
        self._core.read(keys, rows, bits, handles)
        return rows, bits, handles

    def exponents(self, keys: UInt64s) -> Int8s:
        """[n] uint64 → [n] int8, the exponent of each row of integers; 0 for a missing key and at 32 bits."""
        require_array("keys", keys, np.uint64, ("n",))
        exponents = np.empty(len(keys), np.int8)
        self._core.exponents(keys, exponents)
        return exponents

    def differences(self, keys: UInt64s, bits: UInt8s, payload: UInt8s) -> tuple[UInt8s, Bools]:
        """Rows as differences of integers to the stored rows, where precision and exponent are equal.

        Args:
            keys: [n] uint64, distinct.
            bits: [n] uint8, precisions.
            payload: [total] uint8, the rows' payloads.

        Returns:
            payload: [total] uint8, a difference (see `coded_rows`) or the row itself.
            relative: [n] bool, whether it is a difference.
        """
        self._require_payloads(keys, bits, payload)
        changed, relative = payload.copy(), np.empty(len(keys), np.bool_)
        self._core.differences(keys, bits, changed, relative)
        return changed, relative

    def bits(self, keys: UInt64s) -> UInt8s:
        """[n] uint64 → [n] uint8 precisions; 0 for a missing key."""
        require_array("keys", keys, np.uint64, ("n",))
        bits = np.empty(len(keys), np.uint8)
        self._core.bits(keys, bits)
        return bits

    def handles(self, keys: UInt64s) -> UInt32s:
        """[n] uint64 → [n] uint32 handles; NO_HANDLE for a missing key or one without a handle."""
        require_array("keys", keys, np.uint64, ("n",))
        handles = np.empty(len(keys), np.uint32)
        self._core.handles(keys, handles)
        return handles

    def keys_of(self, handles: UInt32s) -> tuple[UInt64s, Bools]:
        """[n] uint32 → [n] uint64 keys with these handles, 0 for unknown handles, and [n] bool whether known."""
        require_array("handles", handles, np.uint32, ("n",))
        keys, known = np.empty(len(handles), np.uint64), np.empty(len(handles), np.bool_)
        self._core.keys_of(handles, keys, known)
        return keys, known

    def keys(self) -> UInt64s:
        """All keys, ascending: [n] uint64."""
        keys: UInt64s = self._core.keys()
        return keys

    def export(self, keys: UInt64s) -> tuple[UInt32s, UInt8s, UInt8s]:
        """Handles, precisions and payloads in the order of `keys`, ready for `put`.

        Returns:
            handles: [n] uint32; NO_HANDLE for a missing key.
            bits: [n] uint8; 0 for a missing key.
            payload: [total] uint8; no bytes for a missing key.
        """
        require_array("keys", keys, np.uint64, ("n",))
        handles, bits, payload = self._core.export_rows(keys)
        return handles, bits, payload

    def digest(self) -> int:
        """Sum mod 2^64 over all keys of XXH64(bits as one byte, payload; seed = key); handles are not included."""
        return int(self._core.digest())

    def __len__(self) -> int:
        return int(self._core.size())

    @property
    def payload_total(self) -> int:
        """Bytes of all payloads."""
        return int(self._core.payload_total())

    @property
    def memory_bytes(self) -> int:
        """Bytes of payloads, indexes and free cells."""
        return int(self._core.memory_bytes())

    def _defect_of(self, rows: ChangedRows, staged: Any) -> str:
        """The message of the error about a change that does not fit."""
        at, keys = int(staged.at), self.keys_of(rows.handles)[0]
        if staged.defect == _native.StageDefect.UNKNOWN_HANDLE:
            missing = rows.handles[~self.keys_of(rows.handles)[1]]
            return f"{len(missing)} handles are unknown here, the first is {missing[0]}"
        if staged.defect == _native.StageDefect.NO_DIFFERENCE:
            stored = int(self.bits(keys[at : at + 1])[0])
            return (
                f"row of key {keys[at]} is a difference of {rows.bits[at]} bits to a row of {stored} bits, "
                "wanted one of integers of the same precision"
            )
        handles = np.concatenate([rows.handles, rows.new_handles])
        return _conflict_of(at, np.concatenate([keys, rows.new_keys]), handles)

    def _require_rows(self, keys: UInt64s, handles: UInt32s, bits: UInt8s, payload: UInt8s) -> None:
        self._require_payloads(keys, bits, payload)
        require_array("handles", handles, np.uint32, (len(keys),))

    def _require_payloads(self, keys: UInt64s, bits: UInt8s, payload: UInt8s) -> None:
        require_array("keys", keys, np.uint64, ("n",))
        require_array("bits", bits, np.uint8, (len(keys),))
        require_array("payload", payload, np.uint8, (payload_total(bits, self.dim),))


def build_served_view(entries: ServedEntries) -> ServedView:
    """A served view that holds `entries`."""
    view = ServedView(entries.dim)
    view.put(entries.keys, entries.handles, entries.bits, entries.payload)
    return view


def _refuse_conflict(conflict: int, keys: UInt64s, handles: UInt32s) -> None:
    """Raise InputError for row `conflict`, whose handle belongs to another key; the number of rows is no conflict."""
    if conflict < len(keys):
        raise InputError(_conflict_of(conflict, keys, handles))


def _conflict_of(row: int, keys: UInt64s, handles: UInt32s) -> str:
    return (
        f"handle {handles[row]} of key {keys[row]} belongs to another key, wanted an unused one. hint: remove that key"
    )
