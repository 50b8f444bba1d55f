"""Segments: runs of a bucket's rows. Each is written once; of its rows only flags change, which are kept elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa


class Segment(NamedTuple):
    """Which rows a segment holds, and how long and of which checksum (hex) its frame is."""

    serial: int
    first: int
    stop: int
    digest: str
    length: int

    @property
    def name(self) -> str:
        return f"{self.serial}-{self.first}-{self.stop}-{self.digest}"


@dataclass(frozen=True)
class BucketSlice:
    """Rows of a bucket that a segment is to be made of. Of them only marks ever change, so any thread may encode it.

    Attributes:
        serial: the bucket's.
        first: the first row's number in it.
        rows: [n] HELD.
        columns: batches of n raw columns in all, one after the other.
    """

    serial: int
    first: int
    rows: np.ndarray
    columns: Sequence[pa.RecordBatch]
