"""A bucket: the held impressions of one range of event time, as typed rows and Arrow's raw columns.

Rows are appended and only their flags change; a bucket is removed as a whole.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.arrays.gather import RowSelection
from pipeline.arrays.structured import copy_rows
from pipeline.arrays.types import Int64s, UInt64s
from pipeline.samples.join.rows import HELD, EmissionFilter, close_rows, extent_of
from pipeline.samples.join.segment import BucketSlice, Segment

NEVER_MS = 2**62
"""Later than every event."""
_MERGED_ROWS = 4_096


class _OpenRange(NamedTuple):
    """Rows from `start` to `stop`, some of whose windows are open; `lowest_at` is the lowest time of those."""

    start: int
    stop: int
    lowest_at: int


class Bucket:
    """Impressions of one range of event time. Not thread-safe.

    Attributes:
        serial: its number, ascending in the order of creation.
        name: (scale, number): it covers the number-th range of the base width << scale.
        lowest_at, latest_at: over its rows, ms.
        lowest_offsets: over its rows, by partition.
        lowest_open_at: a lower bound for the times of open rows; `NEVER_MS` if all are closed.
        batches: raw columns, [n] in all, one after another.
        segments: those it was last stored as; later rows follow them.
    """

    def __init__(self, serial: int, name: tuple[int, int]) -> None:
        self.serial, self.name = serial, name
        self.lowest_at, self.latest_at = NEVER_MS, -NEVER_MS
        self.lowest_offsets: dict[int, int] = {}
        self.lowest_open_at = NEVER_MS
        self.batches: list[pa.RecordBatch] = []
        self.segments: tuple[Segment, ...] = ()
        self._rows, self._length = np.zeros(0, HELD), 0
        self._open_ranges: list[_OpenRange] = []

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> np.ndarray:
        """[n] HELD."""
        return self._rows[: self._length]

    def select(self, rows: Int64s) -> RowSelection:
        """The raw columns of [m] `rows`."""
        return select_rows(self.batches, rows)

    def slice(self, first: int, stop: int) -> BucketSlice:
        """The rows from `first` to `stop`, without a copy."""
        columns, at = [], 0
        for batch in self.batches:
            start, end = max(first - at, 0), min(stop - at, batch.num_rows)
            if start < end:
                columns.append(batch.slice(start, end - start))
            at += batch.num_rows
        return BucketSlice(self.serial, first, self.rows[first:stop], columns)

    def places(self, start: int, stop: int) -> UInt64s:
        """Places of the rows from `start` to `stop`."""
        return np.uint64(self.serial << 32) | np.arange(start, stop, dtype=np.uint64)

    def reserve(self, rows: int) -> None:
        """Allocate memory for so many rows in all."""
        grown = np.zeros(max(rows, self._length), HELD)
        copy_rows(grown[: self._length], self.rows)
        self._rows = grown

    def append(self, rows: np.ndarray, columns: pa.RecordBatch) -> None:
        """Add [m] HELD rows with their raw columns, m at least 1."""
        start, stop = self._length, self._length + len(rows)
        if stop > len(self._rows):
            self.reserve(max(stop, 2 * len(self._rows)))
        copy_rows(self._rows[start:stop], rows)
        self._length = stop
        self.batches.append(columns)
        self._merge_small_batches()
        extent = extent_of(rows)
        self.lowest_at, self.latest_at = min(self.lowest_at, extent.lowest_at), max(self.latest_at, extent.latest_at)
        for partition, lowest in extent.lowest_offsets.items():
            self.lowest_offsets[partition] = min(lowest, self.lowest_offsets.get(partition, lowest))
        if extent.open:
            self._add_open(_OpenRange(start, stop, extent.lowest_at))

    def close_until(self, at_ms: int, emission: EmissionFilter) -> Int64s:
        """Close the windows of rows with time at most `at_ms`; returns [m], those of them to emit."""
        to_emit: list[Int64s] = []
        still_open: list[_OpenRange] = []
        for part in self._open_ranges:
            if part.lowest_at > at_ms:
                still_open.append(part)
                continue
            rows, lowest_open = close_rows(self.rows, (part.start, part.stop), at_ms, emission)
            to_emit.append(rows)
            if lowest_open is not None:
                still_open.append(_OpenRange(part.start, part.stop, lowest_open))
        self._open_ranges = still_open
        self.lowest_open_at = min((part.lowest_at for part in still_open), default=NEVER_MS)
        return np.concatenate(to_emit) if to_emit else np.zeros(0, np.int64)

    def _add_open(self, part: _OpenRange) -> None:
        self.lowest_open_at = min(self.lowest_open_at, part.lowest_at)
        if self._open_ranges:
            last = self._open_ranges[-1]
            if last.stop == part.start and part.stop - last.start <= _MERGED_ROWS:
                self._open_ranges.pop()
                part = _OpenRange(last.start, part.stop, min(last.lowest_at, part.lowest_at))
        self._open_ranges.append(part)

    def _merge_small_batches(self) -> None:
        """Merge batches so that their sizes descend: many small blocks leave a logarithmic number of batches."""
        batches = self.batches
        while len(batches) > 1 and batches[-2].num_rows <= min(2 * batches[-1].num_rows, _MERGED_ROWS):
            last = batches.pop()
            batches[-1] = pa.concat_batches([batches[-1], last])


def select_rows(batches: list[pa.RecordBatch], rows: Int64s) -> RowSelection:
    """[m] `rows` of batches, numbered through all of them."""
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    number = np.searchsorted(starts, rows, side="right") - 1
    return RowSelection(tuple(batches), (number << 32 | (rows - starts[number])).astype(np.uint64))
