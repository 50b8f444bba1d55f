"""A bucket: the held impressions of one range of event time, as typed rows and Arrow's raw columns.

Rows are appended and only their flags change; a bucket is removed as a whole.
"""

import numpy as np
import pyarrow as pa

from pipeline.arrays.gather import RowSelection
from pipeline.arrays.structured import copy_rows
from pipeline.arrays.types import Int64s, UInt8s, UInt64s
from pipeline.samples.held.open_windows import MERGED_ROWS, NEVER_MS, OpenWindows
from pipeline.samples.held.rows import HELD, EmissionFilter, close_rows, close_statuses, extent_of
from pipeline.samples.held.segment import BucketSlice, Segment


class Bucket:
    """Impressions of one range of event time. Not thread-safe.

    Attributes:
        serial: its number, ascending in the order of creation.
        name: (scale, number): it covers the number-th range of the base width << scale.
        lowest_at, latest_at: over its rows, ms.
        lowest_offsets: over its rows, by partition.
        windows: by feedback, which are open.
        batches: raw columns, [n] in all, one after another.
        segments: those it was last stored as; later rows follow them.
    """

    def __init__(self, serial: int, name: tuple[int, int], feedbacks: int = 1) -> None:
        self.serial, self.name = serial, name
        self.lowest_at, self.latest_at = NEVER_MS, -NEVER_MS
        self.lowest_offsets: dict[int, int] = {}
        self.windows = tuple(OpenWindows() for _ in range(feedbacks))
        self.batches: list[pa.RecordBatch] = []
        self.segments: tuple[Segment, ...] = ()
        self._rows, self._length = np.zeros(0, HELD), 0
        self._statuses = np.zeros((feedbacks - 1, 0), np.uint8)

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> np.ndarray:
        """[n] HELD."""
        return self._rows[: self._length]

    def flags(self, feedback: int) -> UInt8s:
        """[n] flags of the rows for a feedback, as a view; for others than the first with `CLOSED`."""
        return self.rows["flags"] if feedback == 0 else self._statuses[feedback - 1, : self._length]

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
        statuses = np.zeros((len(self._statuses), len(grown)), np.uint8)
        statuses[:, : self._length] = self._statuses[:, : self._length]
        self._rows, self._statuses = grown, statuses

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
        for windows in self.windows if extent.open else self.windows[1:]:
            windows.add(start, stop, extent.lowest_at)

    def close_until(self, at_ms: int, emission: EmissionFilter, feedback: int = 0) -> Int64s:
        """Close the windows of a feedback for rows with time at most `at_ms`; returns [m], those of them to emit."""

        def close(part: tuple[int, int]) -> tuple[Int64s, int | None]:
            if feedback == 0:
                return close_rows(self.rows, part, at_ms, emission)
            return close_statuses(self.rows, self.flags(feedback), part, at_ms, emission)

        return self.windows[feedback].close_until(at_ms, close)

    def _merge_small_batches(self) -> None:
        """Merge batches so that their sizes descend: many small blocks leave a logarithmic number of batches."""
        batches = self.batches
        while len(batches) > 1 and batches[-2].num_rows <= min(2 * batches[-1].num_rows, MERGED_ROWS):
            last = batches.pop()
            batches[-1] = pa.concat_batches([batches[-1], last])


def select_rows(batches: list[pa.RecordBatch], rows: Int64s) -> RowSelection:
    """[m] `rows` of batches, numbered through all of them."""
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    number = np.searchsorted(starts, rows, side="right") - 1
    return RowSelection(tuple(batches), (number << 32 | (rows - starts[number])).astype(np.uint64))
