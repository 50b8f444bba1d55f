"""Rows of float32 in fewer bits per weight. Wraps `native/quantizer`, which documents the byte layout.

Payloads have no header: codec or bits, and dim, are stored separately. A row has the same bytes on any machine.
Published rows mix precisions (`encode`, `decode`); arrays of one codec are faster (`encode_rows`, `decode_rows`).
"""

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import Float32s, Int64s, UInt8s
from pipeline.errors import InputError

CODECS = ("int2", "int4", "int8", "bf16", "fp16", "fp32", "step4", "step8", "step16")
"""By their native numbers."""
PRECISIONS = (4, 8, 16, 32)
"""Precisions of published rows, in bits per weight before entropy coding: step4, step8, step16, fp32."""
MAX_DIM = 65_536
CODEBOOK_BITS = {"int2": 2, "int4": 4, "int8": 8}
"""Codecs of rows with a scale and an offset, and their bits per weight."""
MAX_ENTRIES = 256

_CODEC_OF = {4: "step4", 8: "step8", 16: "step16", 32: "fp32"}


def row_bytes(codec: str, dim: int) -> int:
    """Bytes of one row.

    >>> {codec: row_bytes(codec, 16) for codec in CODECS}
    {'int2': 8, 'int4': 12, 'int8': 20, 'bf16': 32, 'fp16': 32, 'fp32': 64, 'step4': 17, 'step8': 17, 'step16': 33}

    Raises InputError for an unknown codec, or a dim outside 1..65536.
    """
    require_integer("dim", dim, 1, MAX_DIM)
    return int(_native.payload_bytes(_number_of(codec), int(dim)))


def encode_rows(rows: Float32s, codec: str) -> UInt8s:
    """Encode rows with one codec: [n, dim] float32, finite → [n, row_bytes] uint8.

    Raises:
        InputError: a wrong codec, dtype or shape, or a weight that is NaN or infinite.
    """
    _require_rows(rows)
    payloads = np.empty((len(rows), row_bytes(codec, rows.shape[1])), np.uint8)
    _native.encode_rows(_number_of(codec), rows, payloads)
    return payloads


def decode_rows(payloads: UInt8s, codec: str, dim: int) -> Float32s:
    """Decode payloads of one codec: [n, row_bytes] uint8 → [n, dim] float32.

    >>> rows = np.array([[0.5, -1.0, 0.25]], np.float32)
    >>> bool((decode_rows(encode_rows(rows, "bf16"), "bf16", 3) == rows).all())
    True

    Raises:
        InputError: a wrong codec, dtype or shape.
    """
    require_array("payloads", payloads, np.uint8, ("n", row_bytes(codec, dim)))
    rows = np.empty((len(payloads), dim), np.float32)
    _native.decode_rows(_number_of(codec), payloads, rows)
    return rows


def payload_bytes(bits: int, dim: int) -> int:
    """Bytes of one row at a precision, as serving holds it; deltas carry fewer (`coded_rows`).

    >>> [payload_bytes(bits, 16) for bits in PRECISIONS]
    [17, 17, 33, 64]
    """
    if bits not in PRECISIONS:
        raise InputError(f"bits: got {bits!r}, wanted one of {PRECISIONS}")
    return row_bytes(_CODEC_OF[bits], dim)


def payload_offsets(bits: UInt8s, dim: int) -> Int64s:
    """Start of each row's payload, and the end of the last: [n] uint8 → [n + 1] int64.

    Raises InputError for an unknown precision.
    """
    sizes = np.full(256, -1, np.int64)
    sizes[list(PRECISIONS)] = [payload_bytes(each, dim) for each in PRECISIONS]
    require_array("bits", bits, np.uint8, ("n",))
    row_sizes = sizes[bits]
    if (row_sizes < 0).any():
        raise _unknown_precision(bits)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(row_sizes)])


def payload_total(bits: UInt8s, dim: int) -> int:
    """Bytes of all payloads of rows with these precisions, [n] uint8: the last of `payload_offsets`, but faster.

    >>> payload_total(np.uint8([4, 32, 4]), 16)
    98

    Raises InputError for an unknown precision.
    """
    require_array("bits", bits, np.uint8, ("n",))
    counts = {each: int(np.count_nonzero(bits == each)) for each in PRECISIONS}
    if sum(counts.values()) < len(bits):
        raise _unknown_precision(bits)
    return sum(count * payload_bytes(each, dim) for each, count in counts.items())


def encode(rows: Float32s, bits: UInt8s) -> tuple[UInt8s, Int64s]:
    """Encode rows of mixed precisions as concatenated payloads.

    Args:
        rows: [n, dim] float32, finite.
        bits: [n] uint8, each one of `PRECISIONS`.

    Returns:
        payload: [total] uint8; row i is payload[offsets[i]:offsets[i + 1]].
        offsets: [n + 1] int64.

    Raises:
        InputError: a wrong dtype, shape or precision, or a weight that is NaN or infinite.
    """
    _require_rows(rows)
    require_array("bits", bits, np.uint8, (len(rows),))
    offsets = payload_offsets(bits, rows.shape[1])
    payload = np.empty(int(offsets[-1]), np.uint8)
    _native.encode_mixed(rows, bits, offsets, payload)
    return payload, offsets


def decode(payload: UInt8s, bits: UInt8s, dim: int) -> Float32s:
    """Decode concatenated payloads of mixed precisions.

    Args:
        payload: [total] uint8, the rows' payloads.
        bits: [n] uint8, each one of `PRECISIONS`.
        dim: weights per row.

    Returns:
        [n, dim] float32; exact for rows of 32 bits.

    Raises:
        InputError: a wrong dtype, shape or precision, or a payload whose length does not match `bits`.
    """
    offsets = payload_offsets(bits, dim)
    require_array("payload", payload, np.uint8, (int(offsets[-1]),))
    rows = np.empty((len(bits), dim), np.float32)
    _native.decode_mixed(payload, bits, offsets, rows)
    return rows


def encode_codebook(rows: Float32s, codec: str, entries: int = MAX_ENTRIES) -> UInt8s:
    """Encode rows with one codec and few distinct scales and offsets: [n, dim] float32, finite → [n, row_bytes] uint8.

    `decode_rows` reads them. The first four bytes of a row, its scale and offset, have at most `entries` values, so a
    column with a dictionary has one byte for them, at a larger error. `native/quantizer/codebook.h` documents the
    source. A row's bytes depend on the other rows.

    Args:
        rows: [n, dim] float32, finite.
        codec: one of `CODEBOOK_BITS`.
        entries: distinct scales and offsets, 1..256.

    >>> rows = np.array([[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]], np.float32)
    >>> decode_rows(encode_codebook(rows, "int2", entries=1), "int2", 3).shape
    (2, 3)

    Raises:
        InputError: a wrong codec, dtype, shape or number, or a weight that is NaN or infinite.
    """
    _require_rows(rows)
    if codec not in CODEBOOK_BITS:
        raise InputError(f"codec: got {codec!r}, wanted one of {', '.join(CODEBOOK_BITS)}")
    require_integer("entries", entries, 1, MAX_ENTRIES)
    payloads = np.empty((len(rows), row_bytes(codec, rows.shape[1])), np.uint8)
    _native.encode_codebook(rows, CODEBOOK_BITS[codec], int(entries), payloads)
    return payloads


def _number_of(codec: str) -> int:
    if codec not in CODECS:
        raise InputError(f"codec: got {codec!r}, wanted one of {', '.join(CODECS)}")
    return CODECS.index(codec)


def _unknown_precision(bits: UInt8s) -> InputError:
    at = int(np.argmin(np.isin(bits, PRECISIONS)))
    return InputError(f"bits: got {bits[at]} at {at}, wanted one of {PRECISIONS}")


def _require_rows(rows: Float32s) -> None:
    require_array("rows", rows, np.float32, ("n", "dim"))
    require_integer("dim", rows.shape[1], 1, MAX_DIM)
    finite = np.isfinite(rows)
    if not finite.all():
        row = int(np.argmin(finite.all(axis=1)))
        raise InputError(f"rows: got a weight that is not finite in row {row}, wanted finite ones")
