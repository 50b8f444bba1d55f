"""Source positions as numbers, and what a shard has already said about them in its own partitions (design D4b).

A position is (input, partition, offset, row). After a start, what the samples and dead-letters partitions say beyond
the loaded state is kept here until the position has been read again; saying it twice is then impossible.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ground.block import Kind
from pipeline.samples.index import NONE, JoinIndex

UInt64s = npt.NDArray[np.uint64]

INPUTS: tuple[Kind, Kind] = ("impressions", "clicks")

POSITIVE, NEGATIVE, COMPENSATED, USED = 1, 2, 4, 8
"""What was said: three of an impression; `USED` of an event that needs no second look (a click used, a dead letter)."""

SAID = np.dtype([("input", "i1"), ("partition", "i4"), ("offset", "i8"), ("row", "i4"), ("flags", "u1")], align=True)

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def said_rows(kind: Kind, source: Sequence[npt.ArrayLike], flags: npt.ArrayLike) -> np.ndarray:
    """[n] SAID from columns that broadcast: `source` is partition, offset, row."""
    columns = np.broadcast_arrays(*source, flags)
    rows = np.zeros(len(columns[0]), SAID)
    rows["input"] = INPUTS.index(kind)
    for name, column in zip(("partition", "offset", "row", "flags"), columns, strict=True):
        rows[name] = column
    return rows


def said_by_sample(batch: pa.RecordBatch) -> np.ndarray:
    """[m] SAID of a block of samples: its impressions with what was said of each, and its clicks as used."""
    kinds = batch.column("kind").cast(pa.string()).to_numpy(zero_copy_only=False)
    flags = np.select([kinds == "positive", kinds == "negative"], [POSITIVE, NEGATIVE], COMPENSATED)
    with_click = batch.filter(pc.is_valid(batch.column("click_offset")))
    impressions = said_rows("impressions", _source(batch, "impression_"), flags)
    return np.concatenate([impressions, said_rows("clicks", _source(with_click, "click_"), USED)])


def said_by_dead_letter(table: pa.RecordBatch, topics: Mapping[Kind, str]) -> np.ndarray:
    """[m] SAID of dead letters: events used up. One that never was in an input topic (offset -1) has none."""
    parts = [np.zeros(0, SAID)]
    for kind, topic in topics.items():
        of_topic = pc.and_(pc.equal(table.column("topic"), topic), pc.greater_equal(table.column("offset"), 0))
        parts.append(said_rows(kind, _source(table.filter(of_topic), ""), USED))
    return np.concatenate(parts)


def _source(batch: pa.RecordBatch, prefix: str) -> list[np.ndarray]:
    return [batch.column(prefix + name).to_numpy(zero_copy_only=False) for name in ("partition", "offset", "row")]


class Said:
    """Positions already spoken of. Not thread-safe."""

    def __init__(self, rows: np.ndarray | None = None) -> None:
        self.rows = np.zeros(0, SAID) if rows is None else rows
        self._index = JoinIndex()
        self._index_all()

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, rows: np.ndarray) -> None:
        """Take `rows` ([n] SAID) as said; flags of one position add up."""
        everything = np.concatenate([self.rows, rows])
        self._index = JoinIndex()
        places = np.arange(len(everything), dtype=np.uint64)
        earlier = self._index.insert(_ids(everything), places)
        repeated = earlier != NONE
        np.bitwise_or.at(everything["flags"], earlier[repeated].astype(np.int64), everything["flags"][repeated])
        self.rows = everything[~repeated]
        self._index_all()

    def flags(
        self, kind: Kind, partition: npt.ArrayLike, offsets: np.ndarray, rows: np.ndarray
    ) -> npt.NDArray[np.uint8]:
        """[n] uint8 flags of the positions; 0 where nothing was said."""
        if not len(self.rows):
            return np.zeros(len(offsets), np.uint8)
        places = self._index.match(_ids(said_rows(kind, (partition, offsets, rows), 0)))
        found = places != NONE
        return np.where(found, self.rows["flags"][np.where(found, places, 0).astype(np.int64)], 0).astype(np.uint8)

    def drop_below(self, kind: Kind, partition: int, offset: int) -> None:
        """Forget what lies below `offset`: it has been read and will not come again."""
        rows = self.rows
        gone = (rows["input"] == INPUTS.index(kind)) & (rows["partition"] == partition) & (rows["offset"] < offset)
        if gone.any():
            self.rows = rows[~gone]
            self._index = JoinIndex()
            self._index_all()

    def _index_all(self) -> None:
        self._index = JoinIndex()
        if len(self.rows):
            self._index.insert(_ids(self.rows), np.arange(len(self.rows), dtype=np.uint64))


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
