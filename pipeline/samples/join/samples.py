"""The samples of the join, in the order of their decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.gather import RowSelection, gather_array
from pipeline.arrays.types import Bools, Float32s, Int64s, UInt64s
from pipeline.configuration.config import Config
from pipeline.configuration.streams.events import CANDIDATE_SCORE
from pipeline.configuration.streams.feedbacks import Feedback
from pipeline.logs.events.sample_block import KINDS
from pipeline.samples.held.rows import Source

POSITIVE, NEGATIVE, COMPENSATION, CANDIDATE = range(4)
"""Indices in `KINDS`."""

_KIND_NAMES = pa.array(KINDS)
_NO_SCORE = np.float32(np.nan)
_NO_LABEL = pa.scalar(None, pa.float32())


@dataclass(frozen=True)
class DecidedSamples:
    """n samples of one kind.

    Attributes:
        kind: of all of them.
        decided_at: [n] int64, ms.
        impressions: their sources; of candidates, which have no impression, their own.
        negative_written: [n] whether a negative of the impression is emitted.
        columns: [n] raw columns of the impressions.
        clicks: sources of the clicks; None without clicks.
        labels: [n, labels] of the clicks; None without clicks: all labels are 0.
        feedback: the number of the clicks' feedback.
        decides: [n] uint64: bit f is set if the labels of feedback f are decided; None: those of `feedback` alone.
        scores: [n] of candidates; None for all other samples.
    """

    kind: int
    decided_at: Int64s
    impressions: Source
    negative_written: Bools
    columns: RowSelection
    clicks: Source | None = None
    labels: Float32s | None = None
    feedback: int = 0
    decides: UInt64s | None = None
    scores: Float32s | None = None

    def __len__(self) -> int:
        return len(self.decided_at)


class Samples:
    """n samples ordered by decision time, then source position, then kind: the order does not depend on arrival.

    `schema` is the configuration's `sample_schema`. Columns are built for the rows that are requested, so that the
    samples of a long bundle are not in memory twice.
    """

    def __init__(self, config: Config, schema: pa.Schema, parts: Sequence[DecidedSamples]) -> None:
        self._config, self._schema = config, schema
        self._feedbacks = None if config.clicks_only else config.feedbacks
        self._with_candidates = config.events.candidates is not None
        parts = [part for part in parts if len(part)]
        self._n = sum(map(len, parts))
        if not parts:
            return
        self._kinds = np.repeat(np.array([p.kind for p in parts], np.uint8), [len(p) for p in parts])
        self._impressions = Source.concatenate([p.impressions for p in parts])
        self._negative_written = np.concatenate([p.negative_written for p in parts])
        self._columns = RowSelection.concatenate([p.columns for p in parts])
        self._labels = config.label_names
        self._clicks = _Clicks(parts, len(self._labels))
        at = self._impressions
        self._decided_at = np.concatenate([p.decided_at for p in parts])
        self._scores = np.concatenate([_scores(part) for part in parts]) if self._with_candidates else None
        keys: list[npt.NDArray[np.integer]] = [self._decided_at, at.partition, at.offset, at.row, self._kinds]
        if self._feedbacks is not None:
            self._decides = np.concatenate([_decides(part) for part in parts])
            keys.append(self._decides)
        self._order = order_by(keys)

    def __len__(self) -> int:
        return self._n

    def kinds(self) -> dict[str, int]:
        """The number of samples of each kind that occurs."""
        counts = np.bincount(self._kinds, minlength=len(KINDS)).tolist() if self._n else [0] * len(KINDS)
        return {kind: count for kind, count in zip(KINDS, counts, strict=True) if count}

    def kinds_by_feedback(self, feedbacks: int) -> list[dict[str, int]]:
        """As `kinds`, for each feedback of the samples that decide its labels; a candidate decides none."""
        if self._feedbacks is None or not self._n:
            found = {kind: count for kind, count in self.kinds().items() if kind != KINDS[CANDIDATE]}
            return [found] * feedbacks
        by_feedback = []
        for number in range(feedbacks):
            decided = self._kinds[self._decides >> np.uint64(number) & np.uint64(1) == 1]
            counts = np.bincount(decided, minlength=len(KINDS)).tolist()
            by_feedback.append({kind: count for kind, count in zip(KINDS, counts, strict=True) if count})
        return by_feedback

    def batch(self, start: int = 0, stop: int | None = None) -> pa.RecordBatch:
        """The samples from `start` to `stop`, with the columns of `sample_schema`. Safe from several threads."""
        if not self._n:
            return pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in self._schema], schema=self._schema)
        order = self._order[start:stop]
        raw = self._columns.take(order).gather()
        system = self._clicks.columns(order, self._labels)
        for name, column in vars(self._impressions.take(order)).items():
            system[f"impression_{name}"] = pa.array(column)
        system["negative_written"] = pa.array(self._negative_written.take(order))
        system["weight"] = _weights(self._config, raw)
        system["rate"] = pa.array(np.full(len(order), self._config.samples.negative_rate, np.float32))
        system["kind"] = gather_array([_KIND_NAMES], self._kinds.take(order).astype(np.uint64))
        if self._scores is not None:
            system |= self._candidate_columns(self._scores.take(order), order, system)
        if self._feedbacks is not None:
            system |= self._feedback_columns(order, self._feedbacks, system)
        columns = [system[f.name] if f.name in system else raw.column(f.name) for f in self._schema]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _candidate_columns(
        self, scores: Float32s, order: Int64s, columns: Mapping[str, pa.Array]
    ) -> dict[str, pa.Array]:
        """The scores [n] of candidates, and what differs for them: null labels, and none of them was left out."""
        candidate = pa.array(self._kinds.take(order) == CANDIDATE)
        labels = {name: pc.if_else(candidate, _NO_LABEL, columns[name]) for name in self._labels}
        rate = pc.if_else(candidate, pa.scalar(1.0, pa.float32()), columns["rate"])
        return labels | {"rate": rate, CANDIDATE_SCORE: pa.array(scores, from_pandas=True)}

    def _feedback_columns(
        self, order: Int64s, feedbacks: Sequence[Feedback], labels: Mapping[str, pa.Array]
    ) -> dict[str, pa.Array]:
        """The columns of several feedbacks, and the labels with nulls where a sample does not decide them."""
        decides, clicked = self._decides.take(order), self._kinds.take(order) != NEGATIVE  # a candidate decides nothing
        number = np.full(len(order), len(feedbacks), np.int64)
        columns: dict[str, pa.Array] = {"observed_until": pa.array(self._decided_at.take(order))}
        for i, feedback in enumerate(feedbacks):
            decided = decides >> np.uint64(i) & np.uint64(1) == 1
            number[decided & clicked] = i
            for label in feedback.labels:
                columns[label.name] = pc.if_else(pa.array(decided), labels[label.name], _NO_LABEL)
        names = pa.array([*(feedback.kind for feedback in feedbacks), None], pa.string())
        return columns | {"feedback": names.take(pa.array(number))}


def _scores(part: DecidedSamples) -> Float32s:
    return np.full(len(part), _NO_SCORE) if part.scores is None else part.scores


def _decides(part: DecidedSamples) -> UInt64s:
    return np.full(len(part), 1 << part.feedback, np.uint64) if part.decides is None else part.decides


class _Clicks:
    """The clicks of samples, after an entry of zeros that represents no click."""

    def __init__(self, parts: Sequence[DecidedSamples], labels: int) -> None:
        clicks, lengths = [p.clicks for p in parts], [len(p) for p in parts]
        number = np.cumsum(np.repeat([c is not None for c in clicks], lengths))
        self._number = np.where(np.repeat([c is None for c in clicks], lengths), 0, number)
        none = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int32), np.zeros(1, np.int32)
        self._sources = Source.concatenate([Source(*none), *(c for c in clicks if c is not None)])
        of_clicks = [p.labels for p in parts if p.labels is not None]
        self._labels = np.concatenate([np.zeros((1, labels), np.float32), *of_clicks]).T

    def columns(self, order: Int64s, labels: Sequence[str]) -> dict[str, pa.Array]:
        """The clicks' columns and the labels of the samples at [n] `order`."""
        number = self._number.take(order)
        validity, nulls = _validity(number > 0)
        columns = {name: pa.array(column.take(number)) for name, column in zip(labels, self._labels, strict=True)}
        for name, values in vars(self._sources.take(number)).items():
            kind, buffers = pa.from_numpy_dtype(values.dtype), [validity, pa.py_buffer(values)]
            columns[f"click_{name}"] = pa.Array.from_buffers(kind, len(order), buffers, nulls)
        return columns


def _validity(present: Bools) -> tuple[pa.Buffer | None, int]:
    nulls = len(present) - int(np.count_nonzero(present))
    return (pa.py_buffer(np.packbits(present, bitorder="little")) if nulls else None), nulls


def order_by(keys: Sequence[npt.NDArray[np.integer]]) -> Int64s:
    """The stable order by several keys, the first key first.

    Keys are packed into as few 64-bit words as their ranges allow: sorting by one word is several times as fast.

    >>> order_by([np.array([2, 1, 1]), np.array([0, 9, 7])]).tolist()
    [2, 1, 0]
    """
    words: list[UInt64s] = []
    used = 0
    for key in keys:
        low = int(key.min())
        bits = (int(key.max()) - low).bit_length()
        offset = np.subtract(key, low, dtype=np.int64).view(np.uint64)
        if not words or used + bits > 64:
            words.append(offset)
            used = bits
        elif bits:
            words[-1] <<= np.uint64(bits)
            words[-1] |= offset
            used += bits
    return np.lexsort(words[::-1])


def _weights(config: Config, raw: pa.RecordBatch) -> pa.Array:
    if config.samples.weight is None:
        return pa.array(np.ones(raw.num_rows, np.float32))
    return pc.fill_null(raw.column(config.samples.weight).cast(pa.float32(), safe=False), 1.0)
