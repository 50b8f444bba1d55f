"""A small project for tests: a shop with users and items, and samples logs generated from a seed."""

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.logs.events.sample_block import SampleBlock, encode_sample_block
from pipeline.logs.interface.log import Log
from pipeline.process.clock import Clock, SystemClock
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore

START_MS = 1_700_000_000_000

MODEL = """
import keras
from keras import layers

def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    x = layers.Dense(8, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(1)(x))
"""

WRITTEN = {
    "name": "shop",
    "logs": {"shards": 1},
    "events": {
        "key": ["id"],
        "impressions": {"columns": {"id": "int", "user": "string", "item": "string", "tags": "strings"}},
        "clicks": {"columns": {"id": "int"}},
    },
    "model": {"batch_size": 64, "learning_rate": 0.05},
    "fields": [
        {"name": "user", "columns": ["user"], "dim": 4},
        {"name": "item", "columns": ["item"], "dim": 4, "admission": {"kind": "count", "threshold": 2}},
        {"name": "tags", "columns": ["tags"], "dim": 2, "pooling": "mean", "optimizer": {"kind": "adagrad"}},
    ],
    "train": {"commit_every_s": 3600.0, "commit_every_log_s": None, "commit_every_batches": 5},
    "publish": {"incremental_every_s": None, "full_every_s": None},
}
"""The configuration as parsed from a TOML document; tests change copies of it."""


def make_project(root: Path, document: dict | None = None, model: str = MODEL, clock: Clock | None = None) -> Project:
    """A project in `root` with the shop's configuration and model."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "model.py").write_text(model)
    return Project(root, parse_config(document or WRITTEN), clock or SystemClock())


def make_samples(
    seed: int, rows: int, first: int = 0, bad: slice | None = None, weight: float = 1e38
) -> pa.RecordBatch:
    """One sample a second, with clicks that depend on user and item; rows in `bad` have `weight`: the loss explodes."""
    random = np.random.default_rng([seed, first])
    user, item = random.integers(0, 40, rows), random.integers(0, 30, rows)
    clicked = random.random(rows) < 1 / (1 + np.exp(2 - (user % 5) * 0.4 - (item % 3) * 0.6))
    at_ms = START_MS + (first + np.arange(rows)) * 1000
    weights = np.ones(rows, np.float32)
    if bad:
        weights[bad] = weight
    tags = [[f"t{(u + i) % 7}", f"t{i % 4}"][: 1 + u % 2] for u, i in zip(user, item, strict=True)]
    columns = {
        "id": pa.array(first + np.arange(rows)),
        "user": pa.array([f"u{u}" for u in user]),
        "item": pa.array([f"i{i}" for i in item]),
        "tags": pa.array(tags, pa.list_(pa.string())),
        "impression_at": pa.array(at_ms),
        "click_at": pa.array(at_ms + 10, mask=~clicked),
        "label": pa.array(clicked.astype(np.float32)),
        "weight": pa.array(weights),
        "rate": pa.array(np.ones(rows, np.float32)),
        "kind": pa.array(np.where(clicked, "positive", "negative")),
        "negative_written": pa.array(np.zeros(rows, bool)),
        "impression_partition": pa.array(np.zeros(rows, np.int32)),
        "impression_offset": pa.array(first + np.arange(rows)),
        "impression_row": pa.array(np.zeros(rows, np.int32)),
        "click_partition": pa.array(np.zeros(rows, np.int32), mask=~clicked),
        "click_offset": pa.array(first + np.arange(rows), mask=~clicked),
        "click_row": pa.array(np.zeros(rows, np.int32), mask=~clicked),
    }
    return pa.RecordBatch.from_pydict(columns)


def append_samples(log: Log, project: Project, samples: pa.RecordBatch, shard: int = 0, block_rows: int = 100) -> None:
    """Append samples as records of `block_rows`, the last one with the flush flag."""
    topic = project.config.topics.samples
    starts = range(0, samples.num_rows, block_rows)
    values = [
        encode_sample_block(SampleBlock(shard, samples.slice(s, block_rows), {}, {}, 0, s == starts[-1]))
        for s in starts
    ]
    log.append(topic, shard, values, fence=log.acquire_fence(topic, shard))


def train(project: Project, log: Log, shard: int = 0, migrate: bool = False) -> str:
    """Train a shard to the end of its samples; returns CURRENT's digest."""
    store = VersionStore(project)
    trainer = TrainerShard(project, log, store, shard, migrate=migrate)
    try:
        trainer.train(log.end_offset(project.config.topics.samples, shard), threading.Event())
    finally:
        trainer.close()
    return current_digest(store, shard)


def train_with_restarts(project: Project, log: Log) -> str:
    """As `train`, by three trainers of shard 0: the first two end after a third and after half of the records."""
    store, end = VersionStore(project), log.end_offset(project.config.topics.samples, 0)
    for stop_offset in (end // 3, end // 2):
        trainer = TrainerShard(project, log, store, 0)
        trainer.train(stop_offset, threading.Event())
        trainer.close()
    return train(project, log)


def current_digest(store: VersionStore, shard: int = 0) -> str:
    """The digest of CURRENT."""
    current = store.current(shard)
    assert current is not None, "no version yet"
    return store.ledger.version(current).digest
