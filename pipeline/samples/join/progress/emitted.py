"""Source positions, and what a shard has already emitted about them.

A source position is (input, partition, offset, row). Input 0 is the impressions, input f + 1 the events of feedback f,
the last one the candidates, if they are logged.
The flags of an impression are those of one feedback, at input -f: each feedback decides its own labels. After a start,
the positions whose samples and dead letters lie in the shard's partitions beyond the loaded state are stored here until
they have been read again, so that nothing is emitted twice (ARCHITECTURE.md, "Exactly once").
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.splitmix import mix
from pipeline.arrays.types import Bools, UInt8s, UInt64s
from pipeline.configuration.streams.events import CLICKS
from pipeline.configuration.streams.feedbacks import Feedback
from pipeline.logs.events.sample_block import CANDIDATE, of_kind
from pipeline.samples.held.index import NONE, JoinIndex

POSITIVE, NEGATIVE, COMPENSATED, USED = 1, 2, 4, 8
"""Flags of what was emitted: three for an impression; `USED` for an event that is decided (a click of a sample, a dead
letter)."""

EMITTED = np.dtype([("input", "i1"), ("partition", "i4"), ("offset", "i8"), ("row", "i4"), ("flags", "u1")], align=True)


def emitted_rows(number: int, source: Sequence[npt.ArrayLike], flags: npt.ArrayLike) -> np.ndarray:
    """[n] EMITTED of input `number` from columns that broadcast: `source` is partition, offset, row."""
    columns = np.broadcast_arrays(*source, flags)
    rows = np.zeros(len(columns[0]), EMITTED)
    rows["input"] = number
    for name, column in zip(("partition", "offset", "row", "flags"), columns, strict=True):
        rows[name] = column
    return rows


def emitted_by_feedback(number: int, feedback: Feedback, batch: pa.RecordBatch) -> np.ndarray:
    """[m] EMITTED of the samples of a block that decide the labels of feedback `number`.

    These are their impressions with their kinds, and their clicks as used.
    """
    decided = decided_by(feedback, batch)
    kinds = [of_kind(batch, kind) for kind in ("positive", "negative")]
    flags = np.select(kinds, [POSITIVE, NEGATIVE], COMPENSATED)
    clicked = decided & batch.column("click_offset").is_valid().to_numpy(zero_copy_only=False)
    impressions = emitted_rows(-number, _source(batch, "impression_", decided), flags[decided])
    return np.concatenate([impressions, emitted_rows(number + 1, _source(batch, "click_", clicked), USED)])


def emitted_by_candidates(number: int, batch: pa.RecordBatch) -> np.ndarray:
    """[m] EMITTED of a block of samples: its candidates as used; `number` is that of their input."""
    return emitted_rows(number, _source(batch, "impression_", of_kind(batch, CANDIDATE)), USED)


def decided_by(feedback: Feedback, batch: pa.RecordBatch) -> Bools:
    """[n] which samples decide the labels of a feedback."""
    names = batch.schema.names
    label = feedback.labels[0].name
    if "feedback" not in names:
        return np.asarray(~of_kind(batch, CANDIDATE) & (feedback.kind == CLICKS), np.bool_)
    if label not in names:
        return np.zeros(batch.num_rows, np.bool_)
    return np.asarray(batch.column(label).is_valid().to_numpy(zero_copy_only=False), np.bool_)


def emitted_by_dead_letters(table: pa.RecordBatch, topics: Iterable[str]) -> np.ndarray:
    """[m] EMITTED of dead letters, as used; `topics` are those of the inputs, in order.

    A dead letter that was in no input topic (offset -1) has no position.
    """
    parts = [np.zeros(0, EMITTED)]
    for number, topic in enumerate(topics):
        of_topic = pc.and_(pc.equal(table.column("topic"), topic), pc.greater_equal(table.column("offset"), 0))
        parts.append(emitted_rows(number, _source(table.filter(of_topic), ""), USED))
    return np.concatenate(parts)


def _source(batch: pa.RecordBatch, prefix: str, chosen: Bools | None = None) -> list[np.ndarray]:
    columns = [batch.column(prefix + name) for name in ("partition", "offset", "row")]
    if chosen is not None:
        columns = [column.filter(pa.array(chosen)) for column in columns]
    return [column.to_numpy(zero_copy_only=False) for column in columns]


class EmittedPositions:
    """Positions of which something was emitted. Not thread-safe.

    Dropped positions are deleted when they are half of all: a long replay drops a few after every block, and deleting
    them means to index the others again.
    """

    def __init__(self, rows: np.ndarray | None = None) -> None:
        self._index_rows(np.zeros(0, EMITTED) if rows is None else rows)

    def __len__(self) -> int:
        return len(self._rows) - sum(self._dropped.values())

    @property
    def rows(self) -> np.ndarray:
        """[n] EMITTED: those that are not dropped."""
        rows, remaining = self._rows, np.ones(len(self._rows), np.bool_)
        for (number, partition), below in self._below.items():
            remaining &= (rows["input"] != number) | (rows["partition"] != partition) | (rows["offset"] >= below)
        return rows[remaining]

    def add(self, rows: np.ndarray) -> None:
        """Add `rows` ([n] EMITTED); the flags of a position are united."""
        united = np.concatenate([self.rows, rows])
        places = np.arange(len(united), dtype=np.uint64)
        earlier = JoinIndex().insert(_ids(united), places)
        repeated = earlier != NONE
        np.bitwise_or.at(united["flags"], earlier[repeated].astype(np.int64), united["flags"][repeated])
        self._index_rows(united[~repeated])

    def flags(self, number: int, partition: npt.ArrayLike, offsets: np.ndarray, rows: np.ndarray) -> UInt8s:
        """[n] uint8 flags of positions of input `number` that were not dropped; 0 if nothing was emitted."""
        if not len(self):
            return np.zeros(len(offsets), np.uint8)
        places = self._index.match(_ids(emitted_rows(number, (partition, offsets, rows), 0)))
        known = places != NONE
        return np.where(known, self._rows["flags"][np.where(known, places, 0).astype(np.int64)], 0).astype(np.uint8)

    def known(self, number: int, rows: np.ndarray) -> Bools:
        """[n] whether something was emitted about the positions of [n] typed rows of input `number`."""
        return np.asarray(self.flags(number, rows["partition"], rows["offset"], rows["row"]) != 0, np.bool_)

    def drop_below(self, number: int, partition: int, offset: int) -> None:
        """Drop the positions of input `number` below `offset`, which has been read: they are not read again.

        Those of impressions (0) are dropped for all feedbacks.
        """
        found = [at for at in self._offsets if max(at[0], 0) == number and at[1] == partition]
        for at in found:
            self._below[at] = max(offset, self._below.get(at, offset))
            self._dropped[at] = int(np.searchsorted(self._offsets[at], self._below[at]))
        if found and 2 * sum(self._dropped.values()) >= len(self._rows):
            self._index_rows(self.rows)

    def _index_rows(self, rows: np.ndarray) -> None:
        self._rows, self._index = rows, JoinIndex()
        self._below, self._dropped = dict[tuple[int, int], int](), dict[tuple[int, int], int]()
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
    """[n, 2] uint64, one to one with positions, and mixed, because the index uses ids as hashes."""
    high = rows["input"].astype(np.uint8).astype(np.uint64) << np.uint64(24)
    high += rows["partition"].astype(np.uint64)  # at most 10 000
    first = high * np.uint64(2**32) + rows["row"].astype(np.uint64)
    offsets = mix(rows["offset"].astype(np.uint64))
    return np.stack([mix(first) ^ offsets, offsets], axis=1)
