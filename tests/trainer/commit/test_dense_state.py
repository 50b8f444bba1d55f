"""Optimizer and statistics of the dense part through versions: restarts, migration, and what a replica predicts."""

import copy
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.project import Project
from pipeline.errors import MigrationError
from pipeline.logs.open import open_log
from pipeline.model.dense import DenseModel
from pipeline.model.network.weights import unpack
from pipeline.publish.levels.level_publisher import publish_level
from pipeline.serving.replica import Replica
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.deltas.delta import Delta, DenseChange, decode_delta
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train

ADAM = {"kind": "adam", "schedule": {"kind": "exponential", "halve_samples": 500, "warm_up_samples": 100}}
DEEP = """
import keras
from keras import layers

def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    x = layers.Dropout(0.2)(layers.BatchNormalization()(layers.Dense(8, activation="relu")(x)))
    return keras.Model(inputs, layers.Dense(1)(layers.LayerNormalization()(x)))
"""


def shop_of(root: Path, optimizer: dict = ADAM, dense: str = "exact", every_batches: int | None = 5) -> Project:
    document = copy.deepcopy(WRITTEN)
    document["publish"]["dense"] = dense
    document["train"]["commit_every_batches"] = every_batches
    document["events"]["impressions"]["columns"] |= {"price": "float", "place": "floats"}
    document["model"] = {"batch_size": 64, "optimizer": optimizer}
    document["dense"] = [
        {"name": "price", "column": "price", "transform": "log1p", "normalise": True, "clip": [-3, 3]},
        {"name": "place", "column": "place", "size": 2, "normalise": True},
    ]
    return make_project(root, document, DEEP)


def priced(rows: int) -> pa.RecordBatch:
    samples, random = make_samples(1, rows), np.random.default_rng(3)
    samples = samples.append_column("price", pa.array(random.lognormal(3, 1, rows)))
    places = pa.array(random.normal([50.0, -7.0], [9.0, 2.0], (rows, 2)).tolist())
    return samples.append_column("place", places)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[Project, str]:
    project = shop_of(tmp_path_factory.mktemp("straight"))
    log = open_log(project)
    append_samples(log, project, priced(600))
    return project, train(project, log)


def test_trainer_that_is_restarted_at_every_commit_ends_with_the_same_model(tmp_path, straight):
    project = shop_of(tmp_path)
    log, store = open_log(project), VersionStore(project)
    append_samples(log, project, priced(600))
    for end in (2, 3, 6):
        trainer = TrainerShard(project, log, store, 0)
        trainer.train(end, threading.Event())
        trainer.close()
    assert store.ledger.version(store.current(0)).digest == straight[1]


def test_delta_carries_the_statistics_of_its_version_and_no_state_of_the_optimizer(straight):
    store = VersionStore(straight[0])
    commit = store.restore(store.current(0))
    sent, stored = unpack(decode_delta(commit.delta).dense), unpack(commit.dense)
    assert sorted(name for name in sent if name.startswith("scaling/")) == [
        "scaling/place/place/value",
        "scaling/price/price/log1p",
    ]
    assert not [name for name in sent if name.startswith("optimizer/")]
    assert all(sent[name].tobytes() == stored[name].tobytes() for name in sent)
    assert sent["scaling/place/place/value"][0].tolist() == [600, 600]
    assert sent["scaling/place/place/value"][1] == pytest.approx([50, -7], abs=1.5)
    assert int(stored["optimizer/samples"]) == 600


def test_replica_scales_with_the_numbers_of_its_version_to_the_bit(straight):
    store = VersionStore(straight[0])
    commit = store.restore(store.current(0))
    trainer, replica = (DenseModel(straight[0].config, straight[0].root) for _ in range(2))
    trainer.load_weights(commit.dense)
    replica.load_serving(decode_delta(commit.delta).dense)
    inputs = np.random.default_rng(5).normal(20, 30, (9, trainer.layout.columns)).astype(np.float32)
    both = inputs.copy(), inputs.copy()
    for model, each in zip((trainer, replica), both, strict=True):
        model.scale(each)
    assert both[0].tobytes() == both[1].tobytes() != inputs.tobytes()
    assert trainer.predict(both[0]).tobytes() == replica.predict(both[1]).tobytes()


def test_another_optimizer_needs_a_migration_and_begins_with_fresh_state(straight):
    changed = shop_of(straight[0].root, {"kind": "adam", "schedule": {"warm_up_samples": 100}})
    log, store = open_log(changed), VersionStore(changed)
    before = unpack(store.restore(store.current(0)).dense)
    with pytest.raises(MigrationError, match="optimizer changed"):
        TrainerShard(changed, log, store, 0)
    trainer = TrainerShard(changed, log, store, 0, migrate=True)
    trainer.commit()
    trainer.close()
    after = unpack(store.restore(store.current(0)).dense)
    for name, array in after.items():
        if name.startswith("optimizer/"):
            assert not array.any(), name
        else:
            assert array.tobytes() == before[name].tobytes(), name


ENDS = (2, 3, 6)
"""Offsets of the samples log at which the trainers below commit."""


def rounded(root: Path, restarting: bool) -> tuple[Project, list[Delta]]:
    """A project with rounded dense weights, trained by one trainer or by one for each of ENDS, and its deltas."""
    project = shop_of(root, dense="priced", every_batches=None)
    log, store = open_log(project), VersionStore(project)
    append_samples(log, project, priced(600))
    trainer = None
    for end in ENDS:
        trainer = trainer or TrainerShard(project, log, store, 0)
        trainer.train(end, threading.Event())
        if restarting or end == ENDS[-1]:
            trainer.close()
            trainer = None
    return project, [decode_delta(record.value) for record in log.read("deltas", 0, 0)]


def test_rounding_what_is_served_leaves_what_is_trained_and_is_the_same_over_restarts(tmp_path, straight):
    project, deltas = rounded(tmp_path / "restarting", True)
    store = VersionStore(project)
    assert store.ledger.version(store.current(0)).digest == straight[1]
    assert [type(delta.dense) for delta in deltas] == [bytes, *[DenseChange] * (len(deltas) - 1)]
    _, uninterrupted = rounded(tmp_path / "uninterrupted", False)
    assert [delta.dense for delta in deltas] == [delta.dense for delta in uninterrupted]
    assert [delta.after for delta in deltas] == [delta.after for delta in uninterrupted]


def test_a_replica_holds_the_rounded_weights_of_the_version_by_the_topic_and_by_a_full(tmp_path):
    project, deltas = rounded(tmp_path, False)
    log, store = open_log(project), VersionStore(project)
    served = store.complete_delta(store.current(0)).dense
    trained = unpack(store.restore(store.current(0)).dense)
    for name, array in unpack(served).items():
        exact = "moving" in name or "scaling" in name or "seed" in name
        assert (array.tobytes() == trained[name].tobytes()) == exact, name
        assert np.abs(array - trained[name]).max() <= 0.2
    instance = {"id": 3, "user": "u1", "item": "i2", "tags": ["t1"], "price": 20.0, "place": [50.0, -7.0]}
    predictions = []
    for from_file in (False, True):
        if from_file:
            publish_level(project, log, store, 0, "full")
            log.trim("deltas", 0, log.end_offset("deltas", 0))
        replica = Replica.for_predictions(project, log)
        replica.catch_up()
        assert replica.digest() == deltas[-1].after
        predictions.append(replica.predict([instance])[0].tobytes())
    assert predictions[0] == predictions[1]
