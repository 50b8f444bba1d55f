"""Rows of float32 in 4, 8, 16 or 32 bits per weight: the Python face of `native/quantizer`, which has the byte layout.

Payloads carry no header: bits and dim travel beside them. The same row gives the same bytes on any machine.
"""

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.ground.arrays import require, require_range
from pipeline.ground.errors import InputError

Float32s = npt.NDArray[np.float32]
UInt8s = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]

PRECISIONS = (4, 8, 16, 32)
"""Bits per weight."""
MOST_DIM = 65_536


def payload_bytes(bits: int, dim: int) -> int:
    """Bytes of one row.

    >>> [payload_bytes(bits, 16) for bits in PRECISIONS]
    [12, 20, 32, 64]
    """
    require_range("dim", dim, 1, MOST_DIM)
    if bits not in PRECISIONS:
        raise InputError(f"bits: got {bits!r}, wanted one of {PRECISIONS}")
    return int(_native.payload_bytes(int(bits), int(dim)))


def payload_offsets(bits: UInt8s, dim: int) -> Int64s:
    """Where each row's payload begins, and the end of the last: [n] uint8 → [n + 1] int64.

    Raises InputError for a precision there is none of.
    """
    sizes = np.full(256, -1, np.int64)
    sizes[list(PRECISIONS)] = [payload_bytes(each, dim) for each in PRECISIONS]
    require("bits", bits, np.uint8, ("n",))
    of_row = sizes[bits]
    if (of_row < 0).any():
        at = int(np.argmax(of_row < 0))
        raise InputError(f"bits: got {bits[at]} at {at}, wanted one of {PRECISIONS}")
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(of_row)])


def encode(rows: Float32s, bits: UInt8s) -> tuple[UInt8s, Int64s]:
    """Rows as payloads, one after the other.

    Args:
        rows: [n, dim] float32, finite.
        bits: [n] uint8, each one of `PRECISIONS`.

    Returns:
        payload: [total] uint8; row i is payload[offsets[i]:offsets[i + 1]].
        offsets: [n + 1] int64.

    Raises:
        InputError: a wrong dtype, shape or precision, or a weight that is NaN or infinite.
    """
    require("rows", rows, np.float32, ("n", "dim"))
    require("bits", bits, np.uint8, (len(rows),))
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise InputError(f"rows: got a weight that is not finite in row {int(np.argmin(finite))}, wanted finite ones")
    offsets = payload_offsets(bits, rows.shape[1])
    payload = np.empty(int(offsets[-1]), np.uint8)
    _native.encode(rows, bits, offsets, payload)
    return payload, offsets


def decode(payload: UInt8s, bits: UInt8s, dim: int) -> Float32s:
    """The rows that payloads stand for.

    Args:
        payload: [total] uint8, the rows' payloads one after the other.
        bits: [n] uint8, each one of `PRECISIONS`.
        dim: weights per row.

    Returns:
        [n, dim] float32; exact for what `encode` kept in 32 bits.

    Raises:
        InputError: a wrong dtype, shape or precision, or a payload that is not as long as `bits` says.
    """
    offsets = payload_offsets(bits, dim)
    require("payload", payload, np.uint8, (int(offsets[-1]),))
    rows = np.empty((len(bits), dim), np.float32)
    _native.decode(payload, bits, offsets, rows)
    return rows
