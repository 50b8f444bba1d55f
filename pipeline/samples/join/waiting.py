"""Clicks that wait for a time: released by it, in the order of their arrival.

They are in chunks. A chunk is ordered by time once; a release takes its rows up to a time and leaves the others where
they are. Neighbouring chunks are merged while they are small, and what remains of a chunk is copied once half of it is
released. So a row is copied a logarithmic number of times at most, however many blocks arrive and however many releases
there are.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.arrays.types import Int32s, Int64s
from pipeline.configuration.streams.events import EventColumns
from pipeline.samples.join.clicks import Clicks

_MERGED_ROWS = 4_096
"""A chunk of more rows is not merged with later ones."""


class WaitingClicks:
    """Not thread-safe."""

    def __init__(self, events: EventColumns, time: str) -> None:
        """`time`: the field of CLICK by which they are released."""
        self._none, self._time = Clicks.empty(events), time
        self._chunks: list[_Chunk] = []

    def __len__(self) -> int:
        return sum(len(chunk) for chunk in self._chunks)

    def add(self, clicks: Clicks) -> None:
        """Add clicks, which arrive after all others."""
        if not len(clicks):
            return
        parts, rows = [clicks], len(clicks)
        while self._chunks and len(self._chunks[-1]) <= min(2 * rows, _MERGED_ROWS):
            last = self._chunks.pop()
            parts.append(last.rest())
            rows += len(last)
        self._chunks.append(_Chunk(Clicks.concatenate(parts[::-1]), self._time))

    def release(self, until_ms: int) -> Clicks:
        """Remove the clicks with a time up to `until_ms` and return them, in the order of their arrival."""
        released, chunks = [self._none], []
        for chunk in self._chunks:
            due = chunk.next_ms <= until_ms
            if due:
                released.append(chunk.release(until_ms))
            if len(chunk):
                chunks.append(chunk.compact(self._time) if due else chunk)
        self._chunks = chunks
        return Clicks.concatenate(released)

    def in_order(self) -> Clicks:
        """All of them, in the order of their arrival."""
        return Clicks.concatenate([self._none, *(chunk.rest() for chunk in self._chunks)])

    def replace(self, clicks: Clicks) -> None:
        """Hold these and no others."""
        self._chunks = []
        self.add(clicks)

    def lowest_offsets(self) -> dict[int, int]:
        """By partition, the lowest source offset."""
        lowest: dict[int, int] = {}
        for chunk in self._chunks:
            for partition, offset in chunk.lowest_offsets():
                lowest[partition] = min(offset, lowest.get(partition, offset))
        return lowest


class _Chunk:
    """Clicks in the order of their arrival, of which those up to a time are released; at least one."""

    def __init__(self, clicks: Clicks, time: str) -> None:
        self._clicks, self._released = clicks, 0
        times = clicks.rows[time]
        self._order = np.argsort(times, kind="stable")
        """[n] the rows by time; the first ones are released."""
        self._times = times[self._order]
        self._lowest = _lowest_from(clicks.rows["partition"][self._order], clicks.rows["offset"][self._order])

    def __len__(self) -> int:
        return len(self._order) - self._released

    @property
    def next_ms(self) -> int:
        """The time of the next row; only while there is one."""
        return int(self._times[self._released])

    def release(self, until_ms: int) -> Clicks:
        """Release the rows with a time up to `until_ms`."""
        start, self._released = self._released, int(np.searchsorted(self._times, until_ms, "right"))
        return self._between(start, self._released)

    def rest(self) -> Clicks:
        """The rows that are not released."""
        return self._between(self._released, len(self._order))

    def compact(self, time: str) -> "_Chunk":
        """The rows that are not released, without the others in memory once those are half of all."""
        return _Chunk(self.rest(), time) if 0 < len(self) <= self._released else self

    def lowest_offsets(self) -> Iterator[tuple[int, int]]:
        """(partition, lowest source offset of a row that is not released)."""
        for partition, (places, lowest) in self._lowest.items():
            at = int(np.searchsorted(places, self._released))
            if at < len(places):
                yield partition, int(lowest[at])

    def _between(self, start: int, stop: int) -> Clicks:
        if stop - start == len(self._order):
            return self._clicks
        return self._clicks.take(np.sort(self._order[start:stop]))


def _lowest_from(partitions: Int32s, offsets: Int64s) -> dict[int, tuple[Int64s, Int64s]]:
    """By partition its [m] places among the rows, ascending, and [m] the lowest offset from each of them on."""
    order = np.argsort(partitions, kind="stable")
    found = {}
    for places in np.split(order, np.flatnonzero(np.diff(partitions[order])) + 1):
        lowest = np.minimum.accumulate(offsets[places][::-1])[::-1]
        found[int(partitions[places[0]])] = places, lowest
    return found
