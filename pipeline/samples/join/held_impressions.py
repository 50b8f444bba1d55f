"""The impressions that the join holds: buckets of event time, each with typed rows and Arrow's raw columns.

A place (uint64) is a bucket's serial number and a row in it; the native index over ids gives places. The rows' status
is all that ever changes; a bucket is forgotten whole. Holds and finds, decides nothing.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays.block import Int64s
from pipeline.arrays.gather import RowSelection
from pipeline.arrays.structured import copy_rows
from pipeline.samples.join.durations import Durations
from pipeline.samples.join.index import NONE, JoinIndex
from pipeline.samples.join.rows import HELD, EmissionFilter, close_rows, extent_of, rows_at
from pipeline.samples.join.segment import BucketSlice, Segment

UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

_ROW_BITS = np.uint64(32)
_ROW_MASK = np.uint64(2**32 - 1)
_BUCKETS_PER_LIFE = 16
_MERGED_ROWS = 4_096
_SHARE_KEPT = 8
"""A stretch of a block is held as a part of it, uncopied, where that is at least one in so many of its rows."""
_ROWS_PER_BUCKET = 512
"""Where events are sparse, buckets are made wider until a block fills them with so many rows each."""


class Bucket:
    """Impressions of one stretch of event time. `rows` is [n] HELD; `columns` has n rows."""

    def __init__(self, serial: int, name: tuple[int, int]) -> None:
        self.serial, self.name = serial, name
        self._rows = np.zeros(0, HELD)
        self._length = 0
        self._batches: list[pa.RecordBatch] = []
        self.lowest_at, self.latest_at = 2**62, -(2**62)
        self.lowest_offsets: dict[int, int] = {}
        self.open_from: list[tuple[int, int, int]] = []
        """Stretches (first row, last row + 1, lowest open time) whose windows are not all closed."""
        self.lowest_open_at = 2**62
        """The lowest time of a row that is not closed, or below it; 2^62 where there is none."""
        self.segments: tuple[Segment, ...] = ()
        """What it was last saved as; later rows come behind these."""

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> np.ndarray:
        return self._rows[: self._length]

    @property
    def columns(self) -> pa.RecordBatch:
        """[n] raw columns, n at least 1."""
        if len(self._batches) > 1:
            self._batches = [pa.concat_batches(self._batches)]
        return self._batches[0]

    @property
    def batches(self) -> list[pa.RecordBatch]:
        """The raw columns as they lie, one after the other."""
        return self._batches

    def pick(self, rows: Int64s) -> RowSelection:
        """The raw columns of [m] `rows`, to be gathered later."""
        return _picked(self._batches, rows)

    def slice(self, first: int, stop: int) -> BucketSlice:
        """The rows from `first` to `stop`, as they lie."""
        columns, at = [], 0
        for batch in self._batches:
            start, end = max(first - at, 0), min(stop - at, batch.num_rows)
            if start < end:
                columns.append(batch.slice(start, end - start))
            at += batch.num_rows
        return BucketSlice(self.serial, first, self.rows[first:stop], columns)

    def places(self, start: int, stop: int) -> UInt64s:
        """Places of the rows from `start` to `stop`."""
        return np.uint64(self.serial << 32) | np.arange(start, stop, dtype=np.uint64)

    def reserve(self, rows: int) -> None:
        """Make room for so many rows in all."""
        grown = np.zeros(max(rows, self._length), HELD)
        copy_rows(grown[: self._length], self.rows)
        self._rows = grown

    def append(self, rows: np.ndarray, columns: pa.RecordBatch) -> None:
        """Hold [m] HELD rows with their raw columns, m at least 1."""
        start, stop = self._length, self._length + len(rows)
        if stop > len(self._rows):
            self.reserve(max(stop, 2 * len(self._rows)))
        copy_rows(self._rows[start:stop], rows)
        self._length = stop
        self._batches.append(columns)
        self._merge_small_batches()
        extent = extent_of(rows)
        self.lowest_at, self.latest_at = min(self.lowest_at, extent.lowest_at), max(self.latest_at, extent.latest_at)
        for partition, lowest in extent.lowest_offsets.items():
            self.lowest_offsets[partition] = min(lowest, self.lowest_offsets.get(partition, lowest))
        if extent.open:
            self._open(start, stop, extent.lowest_at)

    def close_until(self, at_ms: int, telling: EmissionFilter) -> Int64s:
        """Close the windows of rows with time at most `at_ms`; returns the [m] rows among them to tell of."""
        told: list[Int64s] = []
        still: list[tuple[int, int, int]] = []
        for start, stop, lowest in self.open_from:
            if lowest > at_ms:
                still.append((start, stop, lowest))
                continue
            rows, lowest_open = close_rows(self.rows, (start, stop), at_ms, telling)
            told.append(rows)
            if lowest_open is not None:
                still.append((start, stop, lowest_open))
        self.open_from = still
        self.lowest_open_at = min((lowest for *_, lowest in still), default=2**62)
        return np.concatenate(told) if told else np.zeros(0, np.int64)

    def _open(self, start: int, stop: int, lowest: int) -> None:
        self.lowest_open_at = min(self.lowest_open_at, lowest)
        if self.open_from and self.open_from[-1][1] == start and stop - self.open_from[-1][0] <= 4096:
            first, _, before = self.open_from.pop()
            start, lowest = first, min(before, lowest)
        self.open_from.append((start, stop, lowest))

    def _merge_small_batches(self) -> None:
        """Keep batches growing in size, so that many small blocks cost a logarithm, not their number."""
        batches = self._batches
        while len(batches) > 1 and batches[-2].num_rows <= min(2 * batches[-1].num_rows, _MERGED_ROWS):
            last = batches.pop()
            batches[-1] = pa.concat_batches([batches[-1], last])


class HeldImpressions:
    """All buckets and the index over their ids. Not thread-safe."""

    def __init__(self, spans: Durations) -> None:
        self._known_ms, self._held_ms = spans.known_ms, spans.held_ms
        self._width_ms = max(1, spans.held_ms // _BUCKETS_PER_LIFE)
        self._index = JoinIndex()
        self._by_name: dict[tuple[int, int], Bucket] = {}
        self.buckets: dict[int, Bucket] = {}
        self._next_serial = 0
        # An id may be used again once its impression is no longer known, which may still be held: place → place before.
        self._earlier: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self.buckets.values())

    @property
    def index_bytes(self) -> int:
        """What the index over ids takes."""
        return self._index.memory_bytes

    def hold(self, rows: np.ndarray, columns: pa.RecordBatch) -> Bools:
        """Hold impressions in log order, the first of each id.

        Args:
            rows: [n] HELD.
            columns: [n] raw columns.

        Returns:
            [n] bool: held. A row is not held where an impression with its id is known at its time.
        """
        if not len(rows):
            return np.zeros(0, np.bool_)
        ids = _ids(rows)
        parts = self._parts(rows["at"])
        before = self._index.insert(ids, self._places(parts, len(rows)))
        if (before == NONE).all():
            self._append(parts, rows, columns)
            return np.ones(len(rows), np.bool_)
        self._index.remove(ids[before == NONE])
        return self._hold_repeated(rows, columns)

    def find(self, ids: UInt64s, at_ms: Int64s) -> tuple[UInt64s, Int64s, Int64s]:
        """The impression each click may belong to.

        Args:
            ids: [n, 2] of the clicks.
            at_ms: [n] times of the clicks.

        Returns:
            places: [n] of the latest held impression at or before the click; NONE where there is none.
            found_at_ms: [n] its time; undefined for NONE.
            next_at_ms: [n] time of the earliest held impression after the click; 2^62 where there is none.
        """
        places = self._index.match(ids)
        times = self._times(places)
        after = np.full(len(places), 2**62, np.int64)
        while True:
            later = (places != NONE) & (times > at_ms)
            if not later.any():
                return places, times, after
            after[later] = times[later]
            places = places.copy()
            places[later] = [self._earlier.get(int(p), int(NONE)) for p in places[later]] if self._earlier else NONE
            times = self._times(places)

    def rows_at(self, places: UInt64s) -> np.ndarray:
        """[n] HELD at held places, a copy."""
        return rows_at([bucket.rows for bucket in self.buckets.values()], self._numbered(places))

    def pick(self, places: UInt64s) -> RowSelection:
        """The raw columns at held places, to be gathered later."""
        buckets, numbered = self.buckets.values(), self._numbered(places)
        first = np.cumsum([0, *map(len, buckets)])[(numbered >> _ROW_BITS).view(np.int64)]
        return _picked([b for bucket in buckets for b in bucket.batches], first + (numbered & _ROW_MASK).view(np.int64))

    def set_flags(self, places: UInt64s, flag: int) -> None:
        """Add `flag` to the status of held places."""
        serials, rows = places >> _ROW_BITS, (places & _ROW_MASK).astype(np.int64)
        for serial in np.unique(serials):
            self.buckets[int(serial)].rows["flags"][rows[serials == serial]] |= np.uint8(flag)

    def open_until(self, at_ms: int) -> list[Bucket]:
        """The buckets with an open row of time at most `at_ms`."""
        return [b for b in self.buckets.values() if b.lowest_open_at <= at_ms]

    def remove_expired(self, watermark_ms: int) -> None:
        """Forget every bucket of which nothing can matter any more at this watermark."""
        gone = [b for b in self.buckets.values() if b.latest_at + self._held_ms <= watermark_ms]
        if not gone:
            return
        for bucket in gone:
            del self.buckets[bucket.serial], self._by_name[bucket.name]
            self._index.remove_bucket(bucket.serial)
        live = self.buckets
        self._earlier = {n: o for n, o in self._earlier.items() if n >> 32 in live and o >> 32 in live}

    def lowest_offsets(self) -> dict[int, int]:
        """Per partition the lowest source offset of anything held."""
        lowest: dict[int, int] = {}
        for bucket in self.buckets.values():
            for partition, offset in bucket.lowest_offsets.items():
                lowest[partition] = min(offset, lowest.get(partition, offset))
        return lowest

    @property
    def links(self) -> npt.NDArray[np.uint64]:
        """[m, 2] places: an impression, and the one before it with the same id."""
        return np.array(list(self._earlier.items()), np.uint64).reshape(-1, 2)

    def restore(self, buckets: list[Bucket], links: UInt64s) -> None:
        """Hold saved buckets, and index them again: of several impressions with one id the latest."""
        self._earlier = {int(newer): int(older) for newer, older in links}
        for bucket in sorted(buckets, key=lambda b: b.serial):
            self.buckets[bucket.serial] = self._by_name[bucket.name] = bucket
            self._next_serial = max(self._next_serial, bucket.serial + 1)
        self._index.reserve(len(self))
        for bucket in buckets:
            ids, places = _ids(bucket.rows), bucket.places(0, len(bucket))
            if len(links):
                newest = ~np.isin(places, links[:, 1])
                ids, places = ids[newest], places[newest]
            self._index_latest(ids, places)

    def _index_latest(self, ids: UInt64s, places: UInt64s) -> None:
        before = self._index.insert(ids, places)
        for i in np.flatnonzero(before != NONE).tolist():
            # The one before has lost its link: what came between them was forgotten first.
            new_at, old_at = self._times(np.array([places[i], self._index.match(ids[i : i + 1])[0]], np.uint64))
            if new_at > old_at:
                self._index.remove(ids[i : i + 1])
                self._index.insert(ids[i : i + 1], places[i : i + 1])

    def _hold_repeated(self, rows: np.ndarray, columns: pa.RecordBatch) -> Bools:
        """`hold` where some ids are there already, or repeat inside `rows`."""
        middle = len(rows) // 2
        # Inside less than a known span an id cannot be used again, so a repetition there is a duplicate.
        if middle and int(rows["at"].max()) - int(rows["at"].min()) >= self._known_ms:
            halves = [
                self.hold(rows[part], columns.take(pa.array(np.arange(len(rows))[part])))
                for part in (slice(0, middle), slice(middle, None))
            ]
            return np.concatenate(halves)
        ids = _ids(rows)
        before = self._index.match(ids)
        new = (before == NONE) | (self._times(before) + self._known_ms <= rows["at"])
        kept = np.flatnonzero(new)
        kept = kept[JoinIndex().insert(ids[kept], np.zeros(len(kept), np.uint64)) == NONE]
        again = kept[before[kept] != NONE]
        self._index.remove(ids[again])
        parts = self._parts(rows["at"][kept])
        places = self._places(parts, len(kept))
        self._index.insert(ids[kept], places)
        self._append(parts, rows.take(kept), RowSelection.of(columns, kept).gather())
        linked = before[kept] != NONE
        self._earlier.update(zip(places[linked].tolist(), before[kept][linked].tolist(), strict=True))
        held = np.zeros(len(rows), np.bool_)
        held[kept] = True
        return held

    def _parts(self, at_ms: Int64s) -> list[tuple[Bucket, Int64s]]:
        """The bucket of each row: (bucket, [m] rows in order)."""
        if not len(at_ms):
            return []
        low, high = int(at_ms.min()), int(at_ms.max())
        scale = self._scale(len(at_ms), high - low)
        width_ms = self._width_ms << scale
        if low // width_ms == high // width_ms:
            return [(self._bucket((scale, low // width_ms)), np.arange(len(at_ms)))]
        numbers = at_ms // width_ms
        order = np.argsort(numbers, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
        return [(self._bucket((scale, int(numbers[g[0]]))), g) for g in groups]

    @staticmethod
    def _places(parts: list[tuple[Bucket, Int64s]], n: int) -> UInt64s:
        """[n] the places that rows will have once appended."""
        places = np.empty(n, np.uint64)
        for bucket, rows in parts:
            places[rows] = bucket.places(len(bucket), len(bucket) + len(rows))
        return places

    @staticmethod
    def _append(parts: list[tuple[Bucket, Int64s]], rows: np.ndarray, columns: pa.RecordBatch) -> None:
        for bucket, part in parts:
            start, stop = int(part[0]), int(part[-1]) + 1
            if stop - start == len(part) >= columns.num_rows // _SHARE_KEPT:
                bucket.append(rows[start:stop], columns.slice(start, len(part)))
            else:
                bucket.append(rows.take(part), RowSelection.of(columns, part).gather())

    def _bucket(self, name: tuple[int, int]) -> Bucket:
        bucket = self._by_name.get(name)
        if bucket is None:
            bucket = self._by_name[name] = self.buckets[self._next_serial] = Bucket(self._next_serial, name)
            self._next_serial += 1
        return bucket

    def _scale(self, rows: int, span_ms: int) -> int:
        """How often the width doubles so that a block of so many rows over such a span fills its buckets."""
        pieces = span_ms / self._width_ms
        wanted = max(1.0, rows / _ROWS_PER_BUCKET)
        scale = 0
        while pieces / (1 << scale) > wanted:
            scale += 1
        return scale

    def _times(self, places: UInt64s) -> Int64s:
        """[n] times of places; -2^62 for NONE."""
        out = np.full(len(places), -(2**62), np.int64)
        found = np.flatnonzero(places != NONE)
        out[found] = self.rows_at(places[found])["at"]
        return out

    def _numbered(self, places: UInt64s) -> UInt64s:
        """Places with the bucket's number among `buckets` for its serial, which ascend together."""
        serials = np.fromiter(self.buckets, np.uint64, len(self.buckets))
        return np.searchsorted(serials, places >> _ROW_BITS).astype(np.uint64) << _ROW_BITS | places & _ROW_MASK


def _picked(batches: list[pa.RecordBatch], rows: Int64s) -> RowSelection:
    """[m] `rows` of batches that lie one after the other."""
    starts = np.cumsum([0, *(b.num_rows for b in batches)])
    batch = np.searchsorted(starts, rows, side="right") - 1
    return RowSelection(tuple(batches), (batch << 32 | (rows - starts[batch])).astype(np.uint64))


def _ids(rows: np.ndarray) -> UInt64s:
    return np.ascontiguousarray(rows["id"])
