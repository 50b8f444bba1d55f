"""Segments as containers: a bucket's rows in runs that are written once.

Sections: `rows`, the bytes of HELD with all flags zero, and `columns`, the raw columns as an Arrow IPC stream. Of a row
only its flags change, and the head stores those (`snapshot`). A segment's name contains the checksum of its contents:
one name never refers to two contents.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.arrays.structured import copy_rows
from pipeline.errors import DamagedError
from pipeline.formats.columns import pack, unpack
from pipeline.formats.container import Container, Kind, digest_of, encode_container
from pipeline.samples.held.rows import HELD
from pipeline.samples.held.segment import BucketSlice, Segment

STATE_FIX = "delete the join's state; the join then restarts at the offsets that its samples partitions record"
SEGMENT = Kind(b"rows", STATE_FIX)

_LARGE_ROWS = 65_536
"""A segment with more rows is not written again to merge it with later rows."""
_MOST_ROWS = 262_144
"""New rows are cut into segments of this size, so that the memory to encode one is allocated once and reused."""


def cut(stops: Sequence[int], rows: int) -> list[int]:
    """The rows at which the segments of a bucket of `rows` rows end, if its stored segments end at `stops`.

    New rows are merged with the segments before them that are not much larger. Any number of rounds therefore leaves a
    logarithmic number of segments, and a row is written a logarithmic number of times.

    >>> cut([], 10), cut([1000], 1010), cut([1000, 1010], 1020), cut([10], 600_000)
    ([10], [1000, 1010], [1000, 1020], [262144, 524288, 600000])
    """
    edges = [0, *stops, *([rows] if rows > (stops[-1] if stops else 0) else [])]
    while len(edges) > 2 and edges[-2] - edges[-3] <= min(2 * (edges[-1] - edges[-2]), _LARGE_ROWS):
        del edges[-2]
    last = edges[-2:]
    return [*edges[1:-1], *range(last[0] + _MOST_ROWS, last[-1], _MOST_ROWS), *edges[1:][-1:]]


def encode_slice(part: BucketSlice) -> tuple[Segment, bytes]:
    """The segment of a bucket's rows, and its container."""
    n = len(part.rows)
    rows = np.empty(n, HELD)
    copy_rows(rows, part.rows)
    rows["flags"], rows["closed"] = 0, False
    columns = pack(pa.concat_batches(part.columns))
    encoded = encode_container(SEGMENT, {"rows": n}, {"rows": rows.view(np.uint8), "columns": columns})
    return Segment(part.serial, part.first, part.first + n, digest_of(encoded), len(encoded)), encoded


def decode_segment(container: Container) -> tuple[np.ndarray, pa.RecordBatch]:
    """[n] HELD and [n] raw columns. Raises DamagedError."""
    rows = container.array("rows", HELD)
    try:
        return rows, unpack(container.section("columns"), len(rows))
    except DamagedError as failure:
        raise container.damaged(str(failure)) from failure
