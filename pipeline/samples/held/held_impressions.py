"""The impressions that the join holds: buckets by event time, and an index over the ids of their rows.

A place (uint64) is the serial number of a bucket << 32 | a row in it; the index maps an id to the place of its latest
impression. This module stores and finds impressions; the join decides about them.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.arrays.gather import RowSelection
from pipeline.arrays.types import Bools, Int64s, UInt8s, UInt64s
from pipeline.samples.held.bucket import Bucket, select_rows
from pipeline.samples.held.durations import Durations
from pipeline.samples.held.index import NONE, JoinIndex
from pipeline.samples.held.open_windows import NEVER_MS
from pipeline.samples.held.rows import rows_at

_ROW_BITS = np.uint64(32)
_ROW_MASK = np.uint64(2**32 - 1)
_BUCKETS_PER_LIFE = 16
_SLICED_SHARE = 8
"""A contiguous part of a block is stored without a copy if it has at least one in so many of the block's rows."""
_ROWS_PER_BUCKET = 512
"""Buckets are widened until a block adds about so many rows to each: sparse events make few buckets."""


class HeldImpressions:
    """All buckets and the index over their ids. Not thread-safe.

    Attributes:
        buckets: by serial number, ascending.
    """

    def __init__(self, durations: Durations, feedbacks: int = 1) -> None:
        self._feedbacks = feedbacks
        self._known_ms, self._held_ms = durations.known_ms, durations.held_ms
        self._width_ms = max(1, durations.held_ms // _BUCKETS_PER_LIFE)
        self._index = JoinIndex()
        self._by_name: dict[tuple[int, int], Bucket] = {}
        self.buckets: dict[int, Bucket] = {}
        self._next_serial = 0
        # An id may be reused when its impression is no longer known, but still held: place → place of that one.
        self._earlier: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self.buckets.values())

    @property
    def index_bytes(self) -> int:
        """Memory of the index over ids."""
        return self._index.memory_bytes

    def hold(self, rows: np.ndarray, columns: pa.RecordBatch) -> Bools:
        """Hold impressions in log order, the first of each id.

        Args:
            rows: [n] HELD.
            columns: [n] raw columns.

        Returns:
            [n] bool: whether the row is held now: no impression with its id is known at its time.
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
            places: [n] of the latest held impression at or before the click; NONE without one.
            found_at_ms: [n] its time; undefined for NONE.
            next_at_ms: [n] time of the earliest held impression after the click; `NEVER_MS` without one.
        """
        places = self._index.match(ids)
        times = self._times(places)
        after = np.full(len(places), NEVER_MS, np.int64)
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

    def select(self, places: UInt64s) -> RowSelection:
        """The raw columns at held places."""
        buckets, numbered = self.buckets.values(), self._numbered(places)
        first = np.cumsum([0, *map(len, buckets)])[(numbered >> _ROW_BITS).view(np.int64)]
        batches = [batch for bucket in buckets for batch in bucket.batches]
        return select_rows(batches, first + (numbered & _ROW_MASK).view(np.int64))

    def flags_at(self, places: UInt64s, feedback: int = 0) -> UInt8s:
        """[n] the flags of held places for a feedback."""
        if feedback == 0:
            return np.asarray(self.rows_at(places)["flags"], np.uint8)
        out = np.empty(len(places), np.uint8)
        for bucket, which, rows in self._by_bucket(places):
            out[which] = bucket.flags(feedback)[rows]
        return out

    def set_flags(self, places: UInt64s, flag: int, feedback: int = 0) -> None:
        """Add `flag` to the flags of held places for a feedback."""
        for bucket, _, rows in self._by_bucket(places):
            bucket.flags(feedback)[rows] |= np.uint8(flag)

    def open_until(self, at_ms: int, feedback: int = 0) -> list[Bucket]:
        """The buckets with a row of time at most `at_ms` whose window for a feedback is open."""
        return [b for b in self.buckets.values() if b.windows[feedback].lowest_at <= at_ms]

    def _by_bucket(self, places: UInt64s) -> Iterator[tuple[Bucket, Bools, Int64s]]:
        """For every bucket of [n] `places`: the bucket, [n] which places are in it, and their rows."""
        serials, rows = places >> _ROW_BITS, (places & _ROW_MASK).astype(np.int64)
        for serial in np.unique(serials):
            which = serials == serial
            yield self.buckets[int(serial)], which, rows[which]

    def remove_expired(self, watermark_ms: int) -> None:
        """Remove the buckets whose impressions need not be held any more at this watermark."""
        expired = [b for b in self.buckets.values() if b.latest_at + self._held_ms <= watermark_ms]
        if not expired:
            return
        for bucket in expired:
            del self.buckets[bucket.serial], self._by_name[bucket.name]
            self._index.remove_bucket(bucket.serial)
        live = self.buckets
        self._earlier = {a: b for a, b in self._earlier.items() if a >> 32 in live and b >> 32 in live}

    def lowest_offsets(self) -> dict[int, int]:
        """By partition, the lowest source offset of a held impression."""
        lowest: dict[int, int] = {}
        for bucket in self.buckets.values():
            for partition, offset in bucket.lowest_offsets.items():
                lowest[partition] = min(offset, lowest.get(partition, offset))
        return lowest

    @property
    def links(self) -> UInt64s:
        """[m, 2] places: an impression, and the one before it with the same id."""
        return np.array(list(self._earlier.items()), np.uint64).reshape(-1, 2)

    def restore(self, buckets: list[Bucket], links: UInt64s) -> None:
        """Hold stored buckets and index them: of several impressions with one id the latest."""
        self._earlier = {int(place): int(before) for place, before in links}
        for bucket in sorted(buckets, key=lambda b: b.serial):
            self.buckets[bucket.serial] = self._by_name[bucket.name] = bucket
            self._next_serial = max(self._next_serial, bucket.serial + 1)
        self._index.reserve(len(self))
        for bucket in buckets:
            ids, places = _ids(bucket.rows), bucket.places(0, len(bucket))
            if len(links):
                latest = ~np.isin(places, links[:, 1])
                ids, places = ids[latest], places[latest]
            self._index_latest(ids, places)

    def _index_latest(self, ids: UInt64s, places: UInt64s) -> None:
        before = self._index.insert(ids, places)
        for i in np.flatnonzero(before != NONE).tolist():
            # These two have no link: the impression between them was removed first.
            at, indexed_at = self._times(np.array([places[i], self._index.match(ids[i : i + 1])[0]], np.uint64))
            if at > indexed_at:
                self._index.remove(ids[i : i + 1])
                self._index.insert(ids[i : i + 1], places[i : i + 1])

    def _hold_repeated(self, rows: np.ndarray, columns: pa.RecordBatch) -> Bools:
        """`hold` if some ids are indexed already, or repeat inside `rows`."""
        middle = len(rows) // 2
        # Rows within less than `known_ms` cannot reuse an id: there, a repeated id is a duplicate.
        if middle and int(rows["at"].max()) - int(rows["at"].min()) >= self._known_ms:
            halves = [
                self.hold(rows[part], columns.take(pa.array(np.arange(len(rows))[part])))
                for part in (slice(0, middle), slice(middle, None))
            ]
            return np.concatenate(halves)
        ids = _ids(rows)
        before = self._index.match(ids)
        new = (before == NONE) | (self._times(before) + self._known_ms <= rows["at"])
        chosen = np.flatnonzero(new)
        chosen = chosen[JoinIndex().insert(ids[chosen], np.zeros(len(chosen), np.uint64)) == NONE]
        reused = before[chosen] != NONE
        self._index.remove(ids[chosen[reused]])
        parts = self._parts(rows["at"][chosen])
        places = self._places(parts, len(chosen))
        self._index.insert(ids[chosen], places)
        self._append(parts, rows.take(chosen), RowSelection.of(columns, chosen).gather())
        self._earlier.update(zip(places[reused].tolist(), before[chosen[reused]].tolist(), strict=True))
        held = np.zeros(len(rows), np.bool_)
        held[chosen] = True
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
        """[n] the places of rows after `_append`."""
        places = np.empty(n, np.uint64)
        for bucket, rows in parts:
            places[rows] = bucket.places(len(bucket), len(bucket) + len(rows))
        return places

    @staticmethod
    def _append(parts: list[tuple[Bucket, Int64s]], rows: np.ndarray, columns: pa.RecordBatch) -> None:
        for bucket, part in parts:
            start, stop = int(part[0]), int(part[-1]) + 1
            if stop - start == len(part) >= columns.num_rows // _SLICED_SHARE:
                bucket.append(rows[start:stop], columns.slice(start, len(part)))
            else:
                bucket.append(rows.take(part), RowSelection.of(columns, part).gather())

    def _bucket(self, name: tuple[int, int]) -> Bucket:
        bucket = self._by_name.get(name)
        if bucket is None:
            bucket = self._by_name[name] = self.buckets[self._next_serial] = self._new_bucket(name)
            self._next_serial += 1
        return bucket

    def _new_bucket(self, name: tuple[int, int]) -> Bucket:
        return Bucket(self._next_serial, name, self._feedbacks)

    def _scale(self, rows: int, span_ms: int) -> int:
        """How often the width is doubled for a block of so many rows over `span_ms`."""
        buckets = span_ms / self._width_ms
        wanted = max(1.0, rows / _ROWS_PER_BUCKET)
        scale = 0
        while buckets / (1 << scale) > wanted:
            scale += 1
        return scale

    def _times(self, places: UInt64s) -> Int64s:
        """[n] times of places; -`NEVER_MS` for NONE."""
        out = np.full(len(places), -NEVER_MS, np.int64)
        found = np.flatnonzero(places != NONE)
        out[found] = self.rows_at(places[found])["at"]
        return out

    def _numbered(self, places: UInt64s) -> UInt64s:
        """Places with the position of the bucket in `buckets` instead of its serial number; both ascend together."""
        serials = np.fromiter(self.buckets, np.uint64, len(self.buckets))
        return np.searchsorted(serials, places >> _ROW_BITS).astype(np.uint64) << _ROW_BITS | places & _ROW_MASK


def _ids(rows: np.ndarray) -> UInt64s:
    return np.ascontiguousarray(rows["id"])
