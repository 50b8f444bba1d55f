"""Segments: ranges of a bucket's rows that are stored once. Of their rows only flags change, which the head stores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa


class Segment(NamedTuple):
    """Rows `first` to `stop` of bucket `serial`, with the digest (hex) and the length in bytes of their container."""

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
    """Rows of a bucket that become a segment. Only their flags change meanwhile, so any thread may encode them.

    Attributes:
        serial: of the bucket.
        first: the number of the first row in it.
        rows: [n] HELD.
        columns: batches of n raw columns in all, one after another.
    """

    serial: int
    first: int
    rows: np.ndarray
    columns: Sequence[pa.RecordBatch]
