"""A conversion over all impressions through the trainer: restarts, and a head that is added later."""

import copy
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train

LABELS = [{"name": "label"}, {"name": "bought", "given": "label", "conditional": "cvr"}]
HEADS = """
import keras
from keras import layers

def build(inputs):
    x = layers.Dense(8, activation="relu")(layers.Concatenate()(list(inputs.values())))
    return keras.Model(inputs, {name: layers.Dense(1)(x) for name in NAMES})
"""


def shop_of(root: Path, labels: list[dict]) -> Project:
    document = copy.deepcopy(WRITTEN)
    document["events"]["clicks"]["columns"]["bought"] = "float"
    names = [label["name"] for label in labels]
    return make_project(root, document | {"labels": labels}, HEADS.replace("NAMES", str(names)))


def bought(rows: int, first: int = 0) -> pa.RecordBatch:
    """Samples of which every third click is a conversion."""
    samples = make_samples(1, rows, first)
    clicked = samples.column("label").to_numpy()
    return samples.append_column("bought", pa.array((clicked * (np.arange(rows) % 3 == 0)).astype(np.float32)))


def test_trainer_that_is_restarted_at_every_commit_ends_with_the_same_model(tmp_path):
    straight, restarted = shop_of(tmp_path / "straight", LABELS), shop_of(tmp_path / "restarted", LABELS)
    log = open_log(straight)
    append_samples(log, straight, bought(400))
    digest = train(straight, log)
    log.close()
    log, store = open_log(restarted), VersionStore(restarted)
    append_samples(log, restarted, bought(400))
    for end in range(1, 5):
        trainer = TrainerShard(restarted, log, store, 0)
        trainer.train(end, threading.Event())
        trainer.close()
    assert store.ledger.version(store.current(0)).digest == digest


def test_added_conversion_keeps_rows_head_and_scores_of_the_click(tmp_path):
    before = shop_of(tmp_path, LABELS[:1])
    log = open_log(before)
    append_samples(log, before, bought(200))
    train(before, log)
    trainer = TrainerShard(before, log, VersionStore(before), 0)
    x = np.random.default_rng(1).normal(size=(5, trainer._model.layout.columns)).astype(np.float32)
    clicks, rows = trainer._model.predict(x), trainer.status()["rows"]
    trainer.close()
    after = shop_of(tmp_path, LABELS)
    store = VersionStore(after)
    trainer = TrainerShard(after, log, store, 0, migrate=True)
    np.testing.assert_allclose(trainer._model.predict(x)[:, :1], clicks, rtol=1e-6)
    assert trainer.status()["rows"] == rows
    assert trainer.status()["validation"]["label"]["total"]["samples"] == 200
    append_samples(log, after, bought(200, first=200))
    trainer.train(log.end_offset("samples", 0), threading.Event())
    assert trainer.status()["validation"]["bought"]["total"]["positives"] > 0
    trainer.close()
