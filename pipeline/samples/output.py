"""What the join says: samples in the order of their decisions, and dead letters in the order of their sources."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ground.block import ARROW_TYPES, DEAD_LETTER_SCHEMA, DeadLetters
from pipeline.ground.config import Config
from pipeline.ground.gather import Pick, gather_array
from pipeline.logs.sample_block import KINDS, sample_schema
from pipeline.samples.rows import SAMPLE
from pipeline.samples.typed_rows import join_rows

POSITIVE, NEGATIVE, COMPENSATION = range(3)
_KIND_NAMES = pa.array(KINDS)


@dataclass(frozen=True)
class Decided:
    """n samples: `rows` [n] SAMPLE, `labels` [n, labels] float32, `shown` [n] the impressions' raw columns."""

    rows: np.ndarray
    labels: npt.NDArray[np.float32]
    shown: Pick


class Samples:
    """n samples ordered by decision time, then source position, then kind; so that arrival decides nothing.

    Columns are made for a stretch of rows when it is asked for: what a long bundle decides need not be in memory twice.
    """

    def __init__(self, config: Config, parts: Sequence[Decided]) -> None:
        self._config, self._schema = config, sample_schema(config)
        self._rows = join_rows([np.zeros(0, SAMPLE), *(p.rows for p in parts)])
        self._parts = [p for p in parts if len(p.rows)]
        if self._parts:
            keys = ("decided_at", "impression_partition", "impression_offset", "impression_row", "kind")
            self._order = order_by([self._rows[key] for key in keys])
            self._labels = np.concatenate([p.labels for p in self._parts])
            self._shown = Pick.joined([p.shown for p in self._parts])

    def __len__(self) -> int:
        return len(self._rows)

    def kinds(self) -> dict[str, int]:
        """How many there are of each kind that occurs."""
        counts = np.bincount(self._rows["kind"], minlength=len(KINDS)).tolist()
        return {kind: count for kind, count in zip(KINDS, counts, strict=True) if count}

    def batch(self, start: int = 0, stop: int | None = None) -> pa.RecordBatch:
        """The samples from `start` to `stop`, with the columns of `sample_schema`. Safe from several threads."""
        if not len(self):
            return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in self._schema], schema=self._schema)
        order = self._order[start:stop]
        rows, labels = self._rows.take(order), self._labels.take(order, axis=0)
        columns = _columns(self._config, self._schema, rows, labels, self._shown.take(order).gather())
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


@dataclass(frozen=True)
class Decisions:
    """What one bundle decided, samples not laid out in columns yet."""

    samples: Samples
    dead: DeadLetters


@dataclass(frozen=True)
class Output:
    """What one bundle decided: `samples` has the columns of `sample_schema`."""

    samples: pa.RecordBatch
    dead: DeadLetters


def order_by(keys: Sequence[npt.NDArray[np.integer]]) -> npt.NDArray[np.int64]:
    """The stable order by several keys, the first weighing most.

    Keys are packed into as few 64-bit words as their ranges need: sorting by one word is several times as fast.

    >>> order_by([np.array([2, 1, 1]), np.array([0, 9, 7])]).tolist()
    [2, 1, 0]
    """
    words: list[npt.NDArray[np.uint64]] = []
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


def _columns(
    config: Config, schema: pa.Schema, rows: np.ndarray, labels: np.ndarray, raw: pa.RecordBatch
) -> list[pa.Array]:
    clickless = rows["kind"] == NEGATIVE
    system = {name: pa.array(labels[:, i]) for i, name in enumerate(config.samples.labels)}
    for name in ("impression_partition", "impression_offset", "impression_row", "impression_at", "negative_written"):
        system[name] = pa.array(np.ascontiguousarray(rows[name]))
    for name in ("click_at", "click_partition", "click_offset", "click_row"):
        system[name] = pa.array(np.ascontiguousarray(rows[name]), mask=clickless)
    system["weight"] = _weights(config, raw)
    system["rate"] = pa.array(np.full(len(rows), config.samples.negative_rate, np.float32))
    system["kind"] = gather_array([_KIND_NAMES], rows["kind"].astype(np.uint64))
    return [system[f.name] if f.name in system else raw.column(f.name) for f in schema]


def _weights(config: Config, raw: pa.RecordBatch) -> pa.Array:
    if config.samples.weight is None:
        return pa.array(np.ones(raw.num_rows, np.float32))
    return pc.fill_null(raw.column(config.samples.weight).cast(pa.float32(), safe=False), 1.0)


DETAILS = {
    "impression_too_late": "the impression's time lies below its partition's watermark",
    "duplicate_impression": "an earlier impression has this join key",
    "orphan_click": "no impression with this join key is known",
    "click_before_impression": "the impression with this join key is later than the click",
    "click_too_late": "the click comes after window and horizon",
    "duplicate_click": "the impression has a click already",
}


def dead_letters(reason: str, topic: str, rows: np.ndarray, columns: pa.RecordBatch) -> DeadLetters:
    """Events set aside.

    Args:
        reason: one of `DETAILS`.
        topic: their source topic.
        rows: [n] with at, partition, offset and row.
        columns: [n] raw columns; `original` is each row as JSON.
    """
    n = len(rows)
    originals = [
        json.dumps({"at": at, **values}, ensure_ascii=False, default=str).encode()
        for at, values in zip(rows["at"].tolist(), columns.to_pylist(), strict=True)
    ]
    arrays = [
        pa.repeat(reason, n),
        pa.repeat(topic, n),
        *(pa.array(np.ascontiguousarray(rows[name])) for name in ("partition", "offset", "row", "at")),
        pa.repeat(DETAILS[reason], n),
        pa.array(originals, pa.binary()),
    ]
    return DeadLetters(pa.RecordBatch.from_arrays(arrays, schema=DEAD_LETTER_SCHEMA))


_NO_DEAD_LETTERS = DeadLetters(
    pa.RecordBatch.from_arrays([pa.array([], f.type) for f in DEAD_LETTER_SCHEMA], schema=DEAD_LETTER_SCHEMA)
)


def dead_letter_batch(parts: Sequence[DeadLetters]) -> DeadLetters:
    """Dead letters by source position."""
    tables = [p.table for p in parts if p.table.num_rows]
    if not tables:
        return _NO_DEAD_LETTERS
    table = pa.concat_batches(tables)
    keys = [(name, "ascending") for name in ("topic", "partition", "offset", "row")]
    return DeadLetters(table.take(pc.sort_indices(table, sort_keys=keys)))


def empty_columns(columns: Mapping[str, str]) -> pa.RecordBatch:
    """No rows of the declared columns."""
    schema = pa.schema([(n, ARROW_TYPES[t]) for n, t in columns.items()])
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)
