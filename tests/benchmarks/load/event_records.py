"""Encodes events as single records, column by column: the result of the codec's `encode_event`, for millions of events.

A record is laid out as a row of parts (frame, then each field), every part as wide as its widest value, with a mask of
the bytes in use.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.formats.schemas import frame

Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]
"""[n, width] bytes, and a mask of those in use."""

_PRESENT = b"\x02"
"""Selects the second branch of a union with null."""


def encode_events(schema_id: int, batch: pa.RecordBatch) -> list[bytes]:
    """[n] framed records of `at` (int64, ms) and columns of int64, float64 or string, none of them null."""
    n = batch.num_rows
    parts = [_constant(frame(schema_id, b""), n), _longs(batch.column(0).to_numpy())]
    for column in batch.columns[1:]:
        parts += [_constant(_PRESENT, n), *_values(column)]
    counts = np.hstack([mask for _, mask in parts])
    flat = np.hstack([matrix for matrix, _ in parts])[counts].tobytes()
    ends = np.cumsum(counts.sum(1)).tolist()
    return [flat[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _values(column: pa.Array) -> list[Part]:
    if pa.types.is_int64(column.type):
        return [_longs(column.to_numpy())]
    if pa.types.is_float64(column.type):
        matrix = column.to_numpy().view(np.uint8).reshape(-1, 8)
        return [(matrix, np.ones(matrix.shape, np.bool_))]
    lengths = pc.binary_length(column).to_numpy().astype(np.int64)
    width = int(lengths.max(initial=1))
    matrix = np.array(column.cast(pa.binary()).to_pylist(), f"S{width}").view(np.uint8).reshape(-1, width)
    return [_longs(lengths), (matrix, np.arange(width) < lengths[:, None])]


def _longs(values: npt.NDArray[np.int64]) -> Part:
    """Zigzag, seven bits a byte, least significant first; the top bit means that more follow."""
    zigzag = ((values << 1) ^ (values >> 63)).view(np.uint64)
    sevens = zigzag[:, None] >> np.arange(0, 70, 7, dtype=np.uint64)
    more = np.hstack([sevens[:, 1:] != 0, np.zeros((len(values), 1), np.bool_)])
    mask = np.hstack([np.ones((len(values), 1), np.bool_), more[:, :-1]])
    return ((sevens & 127) | (more * np.uint64(128))).astype(np.uint8), mask


def _constant(value: bytes, n: int) -> Part:
    matrix = np.broadcast_to(np.frombuffer(value, np.uint8), (n, len(value)))
    return matrix, np.ones(matrix.shape, np.bool_)
