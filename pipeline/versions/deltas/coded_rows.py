"""The changed rows of a table as an entropy-coded stream. Wraps `native/serving/coded_rows`, which documents it.

Rows are integers (`native/quantizer/integers.h`). Many known rows are differences to what serving holds: their payload
has the mantissas of the row minus those served, modulo 2^8 or 2^16, and exponent 0.
"""

from typing import NamedTuple

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import Bools, Int64s, UInt8s, UInt32s, UInt64s
from pipeline.errors import DamagedError, InputError
from pipeline.versions.deltas.quantizer import MAX_DIM, PRECISIONS, payload_bytes, payload_total

_FLOAT_BITS = 32
_KEY_BYTES = 8
_KNOWN_ROW_BYTES = 6
"""Handle, precision and kind."""
_NEW_ROW_BYTES = 13
"""Key, handle and precision."""


class ChangedRows(NamedTuple):
    """k known rows, then n new ones, and r removed keys.

    Attributes:
        handles: [k] uint32, of rows that serving holds.
        relative: [k] bool, whether the row is a difference; never at 32 bits.
        new_keys: [n] uint64, of rows that serving does not hold.
        new_handles: [n] uint32.
        bits: [k + n] uint8, precisions; known rows first.
        payload: [total] uint8, the rows' payloads in the same order.
        removed: [r] uint64.
    """

    handles: UInt32s
    relative: Bools
    new_keys: UInt64s
    new_handles: UInt32s
    bits: UInt8s
    payload: UInt8s
    removed: UInt64s


class AnnouncedRows(NamedTuple):
    """The counts at the begin of a stream.

    Attributes:
        removed: removed keys.
        by_precision: [4, 3] uint32, rows by precision (`PRECISIONS`) and kind: differences, absolute and new rows.
    """

    removed: int
    by_precision: UInt32s

    def decoded_bytes(self, dim: int) -> int:
        """Bytes of the decoded rows and removed keys.

        >>> announced_rows(b"").decoded_bytes(16)
        0
        """
        counts = self.by_precision.astype(int)
        payloads = sum(n * payload_bytes(bits, dim) for bits, n in zip(PRECISIONS, counts.sum(axis=1), strict=True))
        known, new = int(counts[:, :2].sum()), int(counts[:, 2].sum())
        return int(payloads) + _KNOWN_ROW_BYTES * known + _NEW_ROW_BYTES * new + _KEY_BYTES * self.removed


def announced_rows(coded: bytes) -> AnnouncedRows:
    """What a stream announces, in constant time and memory: nothing if it is too short for that."""
    removed, *counts = _native.announced_rows(coded).tolist()
    return AnnouncedRows(int(removed), np.array(counts, np.uint32).reshape(len(PRECISIONS), -1))


def code_rows(rows: ChangedRows, dim: int) -> bytes:
    """The stream of a table; the same rows in any order give the same bytes, no rows give none.

    Raises:
        InputError: a wrong dtype, shape or precision, a payload whose length does not match `bits`, or a difference of
            32 bits.
    """
    require_changed_rows(rows, dim)
    if (rows.bits[: len(rows.handles)][rows.relative] == _FLOAT_BITS).any():
        raise InputError(f"relative: got a row of {_FLOAT_BITS} bits, wanted differences of integers only")
    coded: bytes = _native.code_rows(*rows, int(dim))
    return coded


def require_changed_rows(rows: ChangedRows, dim: int) -> None:
    """Raise InputError for a wrong dtype, shape or precision, or a payload whose length does not match `bits`."""
    require_array("handles", rows.handles, np.uint32, ("k",))
    require_array("relative", rows.relative, np.bool_, (len(rows.handles),))
    require_array("new_handles", rows.new_handles, np.uint32, ("n",))
    require_array("new_keys", rows.new_keys, np.uint64, (len(rows.new_handles),))
    require_array("bits", rows.bits, np.uint8, (len(rows.handles) + len(rows.new_handles),))
    require_array("payload", rows.payload, np.uint8, (payload_total(rows.bits, dim),))
    require_array("removed", rows.removed, np.uint64, ("r",))


def decode_coded_rows(coded: bytes, dim: int) -> ChangedRows:
    """The rows of a stream: known ones by (precision, absolute, handle), new ones by (precision, handle).

    Raises:
        InputError: not bytes, or a dim outside 1..65536.
        DamagedError: bytes that `code_rows` does not write.
    """
    require_integer("dim", dim, 1, MAX_DIM)
    if not isinstance(coded, bytes):
        raise InputError(f"coded rows: got {type(coded).__name__}, wanted bytes")
    defect, handles, relative, *others = _native.decode_coded_rows(coded, int(dim))
    if defect is not None:
        raise DamagedError(f"coded rows of {len(coded)} bytes {defect}. hint: the delta is damaged")
    return ChangedRows(handles, relative.view(np.bool_), *others)


def reorder_payload(payload: UInt8s, bits: UInt8s, order: Int64s, dim: int) -> UInt8s:
    """Reorder payloads.

    Args:
        payload: [total] uint8.
        bits: [n] uint8, precisions, in the order of the payload.
        order: [n] int64, a permutation: the index of the first row, of the second, and so on.
        dim: weights per row.

    >>> reorder_payload(np.uint8([1, 2, 3, 4, 5, 6, 7]), np.uint8([16, 32]), np.array([1, 0]), 1).tolist()
    [4, 5, 6, 7, 1, 2, 3]

    Raises:
        InputError: a wrong dtype, shape, precision or order.
    """
    require_array("bits", bits, np.uint8, ("n",))
    require_array("payload", payload, np.uint8, (payload_total(bits, dim),))
    require_array("order", order, np.int64, (len(bits),))
    seen = np.zeros(len(bits), np.bool_)
    if len(order) and (order.min() < 0 or order.max() >= len(bits)):
        raise InputError(f"order: got {order.min()}..{order.max()}, wanted each of 0..{len(bits) - 1} once")
    seen[order] = True
    if not seen.all():
        raise InputError(f"order: got no {int(np.argmin(seen))}, wanted each of 0..{len(bits) - 1} once")
    reordered: UInt8s = _native.reorder_payload(payload, bits, order, int(dim))
    return reordered
