"""The seeded stream of samples with an item and a history of items, which read one table.

Zipf items as in `stream`. The click probability depends on the item and on whether the history holds items like it.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.logs.events.sample_block import SampleBlock, encode_sample_block, sample_schema
from pipeline.logs.interface.log import Log
from pipeline.process.clock import SystemClock
from tests.benchmarks.load.stream import START_MS, system_columns, zipf

LENGTH = 50
_RECORD_ROWS = 2_048
_KINDS = 5
"""Items whose numbers are equal modulo this are alike."""

_MODEL = """
import keras
from keras import layers, ops

def build(inputs):
    item, history, mask = inputs["item"], inputs["history"], inputs["history_mask"]
    scores = ops.sum(history * item[:, None, :], axis=2) / 4.0
    shares = ops.softmax(ops.where(mask, scores, -1e9), axis=1)
    read = ops.sum(history * shares[:, :, None], axis=1)
    x = layers.Concatenate()([item, read])
    for units in (256, 128):
        x = layers.Dense(units, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(1)(x))
"""


def history_project(root: Path, length: int = LENGTH, dim: int = 16) -> Project:
    """A project whose fields `item` and `history`, a sequence of `length`, read one table; attention, MLP 256-128."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "model.py").write_text(_MODEL, encoding="utf-8")
    document = {
        "name": "histories",
        "events": {
            "key": ["id"],
            "disorder_s": 1.0,
            "impressions": {"columns": {"id": "int", "item": "int", "history": "ints"}},
            "clicks": {"columns": {"id": "int"}},
        },
        "model": {"batch_size": 2048},
        "tables": [{"name": "items", "dim": dim}],
        "fields": [
            {"name": "item", "columns": ["item"], "table": "items"},
            {"name": "history", "columns": ["history"], "table": "items", "pooling": "none", "max_length": length},
        ],
        "train": {"commit_every_s": 1.0},
    }
    return Project(root, parse_config(document), SystemClock())


def append_histories(project: Project, log: Log, seed: int, rows: int, per_second: float, least: int = LENGTH) -> int:
    """Fill the samples log; histories have `least` to `LENGTH` items. Returns the number of rows to look up."""
    topic, looked_up = project.config.topics.samples, rows
    fence, schema = log.acquire_fence(topic, 0), sample_schema(project.config)
    for first in range(0, rows, _RECORD_ROWS):
        count = min(_RECORD_ROWS, rows - first)
        random = np.random.default_rng([seed, first])
        item, lengths = zipf(random, count), random.integers(least, LENGTH + 1, count)
        history = zipf(random, int(lengths.sum()))
        same = history % _KINDS == np.repeat(item, lengths) % _KINDS
        alike = np.bincount(np.repeat(np.arange(count), lengths), same, count)
        logit = -3.0 + item % _KINDS * 0.3 + 2.0 * alike / np.maximum(lengths, 1)
        at_ms = START_MS + ((first + np.arange(count)) * 1000 / per_second).astype(np.int64)
        ids, offsets = first + np.arange(count), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        columns = {
            "id": pa.array(ids),
            "item": pa.array(item),
            "history": pa.ListArray.from_arrays(pa.array(offsets), pa.array(history)),
            **system_columns(seed, ids, at_ms, logit),
        }
        batch = pa.RecordBatch.from_arrays([columns[f.name].cast(f.type) for f in schema], schema=schema)
        block = SampleBlock(0, batch, {}, {}, 0, first + count == rows)
        log.append(topic, 0, [encode_sample_block(block)], fence=fence)
        looked_up += len(history)
    return looked_up
