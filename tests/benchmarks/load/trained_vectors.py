"""Vectors of two towers that have learned hours of a market: of all its items, and of some of its users.

Most items are rare: what the tower knows of them is category and price.
"""

import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.market.config import MarketConfig
from pipeline.market.market import Market
from pipeline.process.clock import SystemClock
from pipeline.serving.predictor import Predictor
from tests.benchmarks.load.item_vectors import DIM
from tests.benchmarks.models.two_towers import samples_of
from tests.support.world.in_memory_trainer import InMemoryTrainer

_USERS, _AT_ONCE = 5_000, 1 << 16
MODEL = f"""
import keras
from keras import layers

def tower(parts):
    joined = layers.Concatenate()(parts)
    return layers.Dense({DIM})(layers.Concatenate()([joined, layers.Dense(64, activation="relu")(joined)]))

def build(inputs):
    item = tower([inputs["item"], inputs["category"], inputs["price"]])
    return keras.Model(inputs, {{"user": tower([inputs["user"], inputs["interests"]]), "item": item}})
"""
SETTINGS = """
[events]
key = ["id"]
clicks.columns = { id = "int" }
[events.impressions.columns]
id = "int"
user = "string"
item = "string"
category = "string"
interests = "strings"
price = "float"
[[dense]]
name = "price"
column = "price"
transform = "log1p"
[model]
batch_size = 512
learning_rate = 0.05
"""
_TOWERS = {"item_column": "item", "temperature": 0.1, "normalise": True, "negatives": 256}


def trained_vectors(items: int, users: int, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """[items, DIM] and [users, DIM] float32 of length 1."""
    hours, rows = (1, 4_000) if quick else (5, 60_000)
    market = Market(11, MarketConfig(hours=hours, users=_USERS, items=items, impressions_per_hour=rows))
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(Path(folder))
        for hour in range(hours):
            trainer.learn(samples_of(market.events(hour), ("user", "item", "category", "interests", "price")))
            trainer.inputs.clear()
        vectors = _embedding(trainer)
        chosen = np.random.default_rng(5).choice(_USERS, users, replace=False)
        return vectors("item", market.items(hours)), vectors("user", market.users(chosen))


def _embedding(trainer: InMemoryTrainer) -> Callable[[str, pa.RecordBatch], np.ndarray]:
    """(tower, rows of raw columns) → [n, DIM] their vectors."""
    config, root = trainer.project.config, trainer.project.root

    def vectors(tower: str, rows: pa.RecordBatch) -> np.ndarray:
        predictor, found = Predictor(config, root, (tower,)), []
        predictor.load(trainer.model.serving_bytes())
        for first in range(0, len(rows), _AT_ONCE):
            some = rows.slice(first, _AT_ONCE)
            features = trainer.plan.extract(some, np.zeros(len(some), np.int64))
            # The user tower reads no dense input, the item tower the only one.
            dense = features.dense if tower == "item" else features.dense[:, :0]
            found.append(predictor.predict(type(features)(features.keys, dense), trainer.lookup))
        return np.concatenate(found)

    return vectors


def _trainer(folder: Path) -> InMemoryTrainer:
    (folder / "model.py").write_text(MODEL)
    optimizer = {"kind": "adagrad", "learning_rate": 0.1}
    fields = [
        {"name": name, "columns": [name], "dim": 16, "pooling": "mean", "optimizer": optimizer}
        for name in ("user", "item", "category", "interests")
    ]
    label = {"name": "label", "loss": "in_batch", "towers": _TOWERS}
    config = parse_config({**tomllib.loads(SETTINGS), "fields": fields, "labels": [label]})
    return InMemoryTrainer(Project(folder, config, SystemClock()))
