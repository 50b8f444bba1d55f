"""Segments: a bucket's rows in pieces that are written once. Of a row only its marks ever change: they lie elsewhere.

A segment is a frame (`frames`) of two sections: rows as NumPy's bytes of HELD, marks zero, and raw columns as an Arrow
IPC stream. Its name says which rows of which bucket it holds and what they are: one name never means two contents.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.arrays.structured import copy_rows
from pipeline.errors import DamagedError
from pipeline.formats.columns import pack, unpack
from pipeline.samples.join.rows import HELD
from pipeline.samples.join.segment import BucketSlice, Segment
from pipeline.samples.state.frames import digest_of, frame, making_sense, unframe

_LARGE_ROWS = 65_536
"""A segment with more rows is not written again to be joined with what comes after it."""
_MOST_ROWS = 262_144
"""What is new is cut into segments of so many rows: memory for one at a time is made once and used again."""


def cut(stops: Sequence[int], rows: int) -> list[int]:
    """Where the segments of a bucket end that has `rows` rows now, of which those before ended at `stops`.

    What came since is joined with segments before it that are not much larger, so that rounds without number leave a
    logarithm of segments, and a row is written as often.

    >>> cut([], 10), cut([1000], 1010), cut([1000, 1010], 1020), cut([10], 600_000)
    ([10], [1000, 1010], [1000, 1020], [262144, 524288, 600000])
    """
    edges = [0, *stops, *([rows] if rows > (stops[-1] if stops else 0) else [])]
    while len(edges) > 2 and edges[-2] - edges[-3] <= min(2 * (edges[-1] - edges[-2]), _LARGE_ROWS):
        del edges[-2]
    last = edges[-2:]
    return [*edges[1:-1], *range(last[0] + _MOST_ROWS, last[-1], _MOST_ROWS), *edges[1:][-1:]]


def encode_slice(piece: BucketSlice) -> tuple[Segment, bytes]:
    """The segment of a piece, and its frame."""
    return encode_segment(piece.serial, piece.first, piece.rows, pa.concat_batches(piece.columns))


def encode_segment(serial: int, first: int, rows: np.ndarray, columns: pa.RecordBatch) -> tuple[Segment, bytes]:
    """The segment of bucket `serial` from row `first` on, and its frame.

    Args:
        serial: the bucket's.
        first: the first row's number in it.
        rows: [n] HELD.
        columns: [n] raw columns.
    """
    unmarked = np.empty(len(rows), HELD)
    copy_rows(unmarked, rows)
    unmarked["flags"], unmarked["closed"] = 0, False
    value = frame({"rows": len(rows)}, [unmarked.view(np.uint8).data, pack(columns)])
    return Segment(serial, first, first + len(rows), digest_of(value), len(value)), value


def decode_segment(value: bytes, name: str) -> tuple[np.ndarray, pa.RecordBatch]:
    """[n] HELD and [n] raw columns. Raises DamagedError; `name` is for messages."""
    _, sections = unframe(value, name)
    with making_sense(name):
        rows = np.frombuffer(next(sections), HELD).copy()
        try:
            return rows, unpack(bytes(next(sections)), len(rows))
        except DamagedError as failure:
            raise DamagedError(f"{name}: {failure}") from failure
