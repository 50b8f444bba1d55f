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
from pipeline.samples.typed_rows import join_rows

POSITIVE, NEGATIVE, COMPENSATION = range(3)
_KIND_NAMES = pa.array(KINDS)

SAMPLE = np.dtype(
    [
        ("decided_at", "i8"),
        ("impression_at", "i8"),
        ("click_at", "i8"),
        ("impression_offset", "i8"),
        ("click_offset", "i8"),
        ("impression_partition", "i4"),
        ("impression_row", "i4"),
        ("click_partition", "i4"),
        ("click_row", "i4"),
        ("kind", "u1"),
        ("negative_written", "?"),
    ],
    align=True,
)


@dataclass(frozen=True)
class Decided:
    """n samples: `rows` [n] SAMPLE, `labels` [n, labels] float32, `shown` [n] the impressions' raw columns."""

    rows: np.ndarray
    labels: npt.NDArray[np.float32]
    shown: Pick


@dataclass(frozen=True)
class Output:
    """What one bundle decided: `samples` has the columns of `sample_schema`."""

    samples: pa.RecordBatch
    dead: DeadLetters


def sample_batch(config: Config, parts: Sequence[Decided]) -> pa.RecordBatch:
    """Samples ordered by decision time, then source position, then kind; so that arrival decides nothing."""
    schema = sample_schema(config)
    if not sum(len(p.rows) for p in parts):
        return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)
    rows = join_rows([p.rows for p in parts])
    keys = ("decided_at", "impression_partition", "impression_offset", "impression_row", "kind")
    order = order_by([rows[k].astype(np.int64) for k in keys])
    raw = Pick.joined([p.shown for p in parts]).take(order).gather()
    labels = np.concatenate([p.labels for p in parts]).take(order, axis=0)
    return pa.RecordBatch.from_arrays(_columns(config, schema, rows.take(order), labels, raw), schema=schema)


def order_by(keys: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """The stable order by several keys, the first weighing most.

    Keys are packed into as few 64-bit words as their ranges need: sorting by one word is several times as fast.

    >>> order_by([np.array([2, 1, 1]), np.array([0, 9, 7])]).tolist()
    [2, 1, 0]
    """
    words: list[tuple[npt.NDArray[np.uint64], int]] = []
    for key in keys:
        low = int(key.min())
        bits = (int(key.max()) - low).bit_length()
        offset = (key - low).astype(np.uint64)
        if words and words[-1][1] + bits <= 64:
            word, used = words.pop()
            words.append((word << np.uint64(bits) | offset if bits else word, used + bits))
        else:
            words.append((offset, bits))
    return np.lexsort([word for word, _ in reversed(words)])


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


def dead_letter_batch(parts: Sequence[DeadLetters]) -> DeadLetters:
    """Dead letters by source position."""
    tables = [p.table for p in parts if p.table.num_rows]
    if not tables:
        return DeadLetters(
            pa.RecordBatch.from_arrays([pa.array([], f.type) for f in DEAD_LETTER_SCHEMA], schema=DEAD_LETTER_SCHEMA)
        )
    table = pa.concat_batches(tables)
    keys = [(name, "ascending") for name in ("topic", "partition", "offset", "row")]
    return DeadLetters(table.take(pc.sort_indices(table, sort_keys=keys)))


def empty_columns(columns: Mapping[str, str]) -> pa.RecordBatch:
    """No rows of the declared columns."""
    schema = pa.schema([(n, ARROW_TYPES[t]) for n, t in columns.items()])
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)
