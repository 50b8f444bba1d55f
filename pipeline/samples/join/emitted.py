"""Source positions as numbers, and what a shard has already said about them in its own partitions (design D4b).

A position is (input, partition, offset, row). After a start, what the samples and dead-letters partitions say beyond
the loaded state is kept here until the position has been read again; saying it twice is then impossible.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import EventKind
from pipeline.samples.join.index import NONE, JoinIndex

UInt64s = npt.NDArray[np.uint64]

INPUTS: tuple[EventKind, EventKind] = ("impressions", "clicks")

POSITIVE, NEGATIVE, COMPENSATED, USED = 1, 2, 4, 8
"""What was said: three of an impression; `USED` of an event that needs no second look (a click used, a dead letter)."""

EMITTED = np.dtype([("input", "i1"), ("partition", "i4"), ("offset", "i8"), ("row", "i4"), ("flags", "u1")], align=True)

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def emitted_rows(kind: EventKind, source: Sequence[npt.ArrayLike], flags: npt.ArrayLike) -> np.ndarray:
    """[n] EMITTED from columns that broadcast: `source` is partition, offset, row."""
    columns = np.broadcast_arrays(*source, flags)
    rows = np.zeros(len(columns[0]), EMITTED)
    rows["input"] = INPUTS.index(kind)
    for name, column in zip(("partition", "offset", "row", "flags"), columns, strict=True):
        rows[name] = column
    return rows


def emitted_by_samples(batch: pa.RecordBatch) -> np.ndarray:
    """[m] EMITTED of a block of samples: its impressions with what was said of each, and its clicks as used."""
    kinds = batch.column("kind").cast(pa.string()).to_numpy(zero_copy_only=False)
    flags = np.select([kinds == "positive", kinds == "negative"], [POSITIVE, NEGATIVE], COMPENSATED)
    with_click = batch.filter(pc.is_valid(batch.column("click_offset")))
    impressions = emitted_rows("impressions", _source(batch, "impression_"), flags)
    return np.concatenate([impressions, emitted_rows("clicks", _source(with_click, "click_"), USED)])


def emitted_by_dead_letters(table: pa.RecordBatch, topics: Mapping[EventKind, str]) -> np.ndarray:
    """[m] EMITTED of dead letters: events used up. One that never was in an input topic (offset -1) has none."""
    parts = [np.zeros(0, EMITTED)]
    for kind, topic in topics.items():
        of_topic = pc.and_(pc.equal(table.column("topic"), topic), pc.greater_equal(table.column("offset"), 0))
        parts.append(emitted_rows(kind, _source(table.filter(of_topic), ""), USED))
    return np.concatenate(parts)


def _source(batch: pa.RecordBatch, prefix: str) -> list[np.ndarray]:
    return [batch.column(prefix + name).to_numpy(zero_copy_only=False) for name in ("partition", "offset", "row")]


class EmittedPositions:
    """Positions already spoken of. Not thread-safe.

    What is forgotten is cleared away once it is half of all: a long replay forgets a little after every block, and
    would index all the rest anew each time.
    """

    def __init__(self, rows: np.ndarray | None = None) -> None:
        self._hold(np.zeros(0, EMITTED) if rows is None else rows)

    def __len__(self) -> int:
        return len(self._rows) - sum(self._gone.values())

    @property
    def rows(self) -> np.ndarray:
        """[n] EMITTED: those that are not forgotten."""
        rows, kept = self._rows, np.ones(len(self._rows), np.bool_)
        for (number, partition), below in self._below.items():
            kept &= (rows["input"] != number) | (rows["partition"] != partition) | (rows["offset"] >= below)
        return rows[kept]

    def add(self, rows: np.ndarray) -> None:
        """Take `rows` ([n] EMITTED) as said; flags of one position add up."""
        everything = np.concatenate([self.rows, rows])
        places = np.arange(len(everything), dtype=np.uint64)
        earlier = JoinIndex().insert(_ids(everything), places)
        repeated = earlier != NONE
        np.bitwise_or.at(everything["flags"], earlier[repeated].astype(np.int64), everything["flags"][repeated])
        self._hold(everything[~repeated])

    def flags(
        self, kind: EventKind, partition: npt.ArrayLike, offsets: np.ndarray, rows: np.ndarray
    ) -> npt.NDArray[np.uint8]:
        """[n] uint8 flags of the positions, none of them forgotten; 0 where nothing was said."""
        if not len(self):
            return np.zeros(len(offsets), np.uint8)
        places = self._index.match(_ids(emitted_rows(kind, (partition, offsets, rows), 0)))
        found = places != NONE
        return np.where(found, self._rows["flags"][np.where(found, places, 0).astype(np.int64)], 0).astype(np.uint8)

    def drop_below(self, kind: EventKind, partition: int, offset: int) -> None:
        """Forget what lies below `offset`: it has been read and will not come again."""
        at = (INPUTS.index(kind), partition)
        if at in self._offsets:
            self._below[at] = max(offset, self._below.get(at, offset))
            self._gone[at] = int(np.searchsorted(self._offsets[at], self._below[at]))
            if 2 * sum(self._gone.values()) >= len(self._rows):
                self._hold(self.rows)

    def _hold(self, rows: np.ndarray) -> None:
        self._rows, self._index = rows, JoinIndex()
        self._below, self._gone = dict[tuple[int, int], int](), dict[tuple[int, int], int]()
        self._offsets: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
        if not len(rows):
            return
        self._index.insert(_ids(rows), np.arange(len(rows), dtype=np.uint64))
        for number in np.unique(rows["input"]).tolist():
            of_input = rows[rows["input"] == number]
            for partition in np.unique(of_input["partition"]).tolist():
                offsets = of_input["offset"][of_input["partition"] == partition]
                self._offsets[number, partition] = np.sort(offsets)


def _ids(rows: np.ndarray) -> UInt64s:
    """[n, 2] uint64, one to one with positions, and mixed, because the index takes its ids for hashes."""
    high = rows["input"].astype(np.uint64) * np.uint64(2**31) + rows["partition"].astype(np.uint64)
    first = high * np.uint64(2**32) + rows["row"].astype(np.uint64)
    offsets = _mixed(rows["offset"].astype(np.uint64))
    return np.stack([_mixed(first) ^ offsets, offsets], axis=1)


def _mixed(words: UInt64s) -> UInt64s:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): a bijection whose every output bit hangs on all inputs."""
    words = (words ^ (words >> np.uint64(30))) * _MIX[0]
    words = (words ^ (words >> np.uint64(27))) * _MIX[1]
    return words ^ (words >> np.uint64(31))
