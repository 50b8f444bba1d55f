"""The seeded stream of the join, trainer and chain figures: impressions with many categorical columns, and clicks.

Zipf keys, exponent 1.05 over a million values per field. The click probability depends on three of the fields, so that
there is something to learn and importance differs between fields.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.logs.events.sample_block import SampleBlock, encode_sample_block, sample_schema
from pipeline.logs.interface.log import Log
from pipeline.process.clock import SystemClock

Integers = npt.NDArray[np.int64]
START_MS = 1_700_000_000_000
ZIPF, VALUES = 1.05, 1_000_000
RECORD_ROWS = 8_192

_MODEL = """
import keras
from keras import layers

def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    for units in (256, 128):
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(1)(x))
"""


def stream_project(
    root: Path, fields: int = 26, dim: int = 16, tables: int | None = None, **sections: dict[str, Any]
) -> Project:
    """A project whose impressions have an id and `fields` integer columns, each a field of `dim`; MLP 256-128.

    The fields read `tables` tables in turn, or each one of its own.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "model.py").write_text(_MODEL, encoding="utf-8")
    names = field_names(fields)
    document = {
        "name": "stream",
        "events": {
            "key": ["id"],
            "disorder_s": 1.0,
            "impressions": {"columns": {"id": "int"} | dict.fromkeys(names, "int")},
            "clicks": {"columns": {"id": "int"}},
        },
        "model": {"batch_size": 2048},
        **_inputs(names, dim, tables),
        "train": {"commit_every_s": 1.0},
    }
    return Project(root, parse_config(document | sections), SystemClock())


def _inputs(names: list[str], dim: int, tables: int | None) -> dict[str, Any]:
    fields = [{"name": name, "columns": [name], "dim": dim} for name in names]
    if tables is None:
        return {"fields": fields}
    used = min(tables, len(names))
    return {
        "tables": [{"name": f"t{number}", "dim": dim} for number in range(used)],
        "fields": [field | {"table": f"t{number % used}"} for number, field in enumerate(fields)],
    }


def field_names(fields: int) -> list[str]:
    return [f"c{number:02}" for number in range(fields)]


def impressions(
    seed: int, first: int, rows: int, interval_ms: float, fields: int = 26, earlier: int = 0
) -> pa.RecordBatch:
    """`rows` impressions from id `first` on, `interval_ms` apart, in time order.

    Their values are those of the ids that are smaller by `earlier`.
    """
    random = np.random.default_rng([seed, first - earlier])
    columns = {"at": pa.array(_times(first, rows, interval_ms)), "id": pa.array(first + np.arange(rows))}
    return pa.RecordBatch.from_pydict(columns | {name: pa.array(zipf(random, rows)) for name in field_names(fields)})


def clicks_of(seed: int, shown: pa.RecordBatch, share: float, delay_ms: float) -> pa.RecordBatch:
    """Clicks on about `share` of the impressions, delayed exponentially, in time order."""
    random = np.random.default_rng([seed, 7, shown.num_rows])
    clicked = np.flatnonzero(random.random(shown.num_rows) < share)
    at_ms = shown.column("at").to_numpy()[clicked] + random.exponential(delay_ms, len(clicked)).astype(np.int64)
    order = np.argsort(at_ms, kind="stable")
    ids = shown.column("id").to_numpy()[clicked]
    return pa.RecordBatch.from_pydict({"at": pa.array(at_ms[order]), "id": pa.array(ids[order])})


@dataclass(frozen=True)
class World:
    """What the values of the fields are, and what they do.

    Attributes:
        values: (number of the field, Zipf values [n] of it) → [n] its values.
        logit: values [n] by field → [n] logits of the click probability.
    """

    values: Callable[[int, Integers], Integers]
    logit: Callable[[list[Integers]], npt.NDArray[np.float64]]


THREE_FIELDS = World(lambda _, column: column, lambda columns: -3.0 + sum((c % 5) * 0.3 for c in columns[:3]))


def append_samples(
    project: Project,
    log: Log,
    seed: int,
    rows: int,
    per_second: float,
    world: World = THREE_FIELDS,
    start: int = 0,
    *,
    again: bool = False,
) -> None:
    """Fill the samples log as the join does: records of 8,192 rows; log time runs at `per_second` samples a second.

    `start` is the number of the first sample. With `again` the values are those of the first `rows` samples.
    """
    topic, fields = project.config.topics.samples, len(project.config.fields)
    fence = log.acquire_fence(topic, 0)
    schema = sample_schema(project.config)
    for first in range(start, start + rows, RECORD_ROWS):
        count = min(RECORD_ROWS, start + rows - first)
        shown = impressions(seed, first, count, 1000 / per_second, fields, start if again else 0)
        values = [world.values(i, shown.column(name).to_numpy()) for i, name in enumerate(field_names(fields))]
        columns = {name: pa.array(column) for name, column in zip(field_names(fields), values, strict=True)}
        ids, at_ms = shown.column("id").to_numpy(), shown.column("at").to_numpy()
        columns |= {"id": shown.column("id")} | system_columns(seed, ids, at_ms, world.logit(values))
        batch = pa.RecordBatch.from_arrays([columns[f.name].cast(f.type) for f in schema], schema=schema)
        block = SampleBlock(0, batch, {}, {}, 0, first + count == start + rows)
        log.append(topic, 0, [encode_sample_block(block)], fence=fence)


def zipf(random: np.random.Generator, rows: int) -> npt.NDArray[np.int64]:
    """[rows] values between 0 and a million; smaller values are more frequent."""
    return np.searchsorted(_cumulated(), random.random(rows)).astype(np.int64)


def in_records(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """`batch` in pieces that fit one record each."""
    return (batch.slice(start, RECORD_ROWS) for start in range(0, batch.num_rows, RECORD_ROWS))


def system_columns(seed: int, ids: Integers, at_ms: Integers, logit: npt.NDArray[np.float64]) -> dict[str, pa.Array]:
    """The columns after those of the impressions `ids` [n], clicked with the probability of `logit` [n]."""
    random, rows = np.random.default_rng([seed, 8, int(ids[0])]), len(ids)
    clicked = random.random(rows) < 1 / (1 + np.exp(-logit))
    ones, zeros = np.ones(rows, np.float32), np.zeros(rows, np.int32)
    return {
        "impression_at": pa.array(at_ms),
        "click_at": pa.array(at_ms + 10, mask=~clicked),
        "label": pa.array(clicked.astype(np.float32)),
        "weight": pa.array(ones),
        "rate": pa.array(ones),
        "kind": pa.array(np.where(clicked, "positive", "negative")),
        "negative_written": pa.array(~clicked),
        "impression_partition": pa.array(zeros),
        "impression_offset": pa.array(ids),
        "impression_row": pa.array(zeros),
        "click_partition": pa.array(zeros, mask=~clicked),
        "click_offset": pa.array(ids, mask=~clicked),
        "click_row": pa.array(zeros, mask=~clicked),
    }


def _times(first: int, rows: int, interval_ms: float) -> npt.NDArray[np.int64]:
    return START_MS + ((first + np.arange(rows)) * interval_ms).astype(np.int64)


@cache
def _cumulated() -> npt.NDArray[np.float64]:
    weights = np.arange(1, VALUES + 1, dtype=np.float64) ** -ZIPF
    return np.cumsum(weights) / weights.sum()
