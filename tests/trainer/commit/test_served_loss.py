"""What serving loses is measured on the first batch after each commit, and corrects the price of the next one."""

import copy
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.project import Project
from pipeline.features.plan import FeaturePlan
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log
from pipeline.model.dense import DenseModel
from pipeline.publish.price.byte_price import Price
from pipeline.serving.predictor import Predictor
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.deltas.delta import served_dense_of
from pipeline.versions.deltas.served_view import build_served_view
from pipeline.versions.state import Commit, ServedEntries
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train

ROWS, RECORD = 1_920, 128
DEEP = """
import keras
from keras import layers

def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    x = layers.Dropout(0.2)(layers.BatchNormalization()(layers.Dense(8, activation="relu")(x)))
    return keras.Model(inputs, layers.Dense(1)(layers.LayerNormalization()(x)))
"""


def shop_of(root: Path, loss: float = 0.01, **sections: object) -> Project:
    """A version after every record of two batches."""
    document = copy.deepcopy(WRITTEN)
    document["publish"] |= {"loss": loss, "dense": "priced"}
    document["train"]["commit_every_batches"] = 2
    document["fields"][0]["expiry"] = {"ttl_s": 100.0, "sweep_every_s": 20.0}
    return make_project(root, document | sections, DEEP)


def written(project: Project) -> Log:
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS), block_rows=RECORD)
    return log


def commits_of(project: Project) -> list[Commit]:
    store = VersionStore(project)
    return [store.restore(version.id) for version in store.lineage(0)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> list[Commit]:
    project = shop_of(tmp_path_factory.mktemp("straight"))
    train(project, written(project))
    return commits_of(project)


def test_trainer_that_is_replaced_at_every_commit_sends_the_same_deltas(tmp_path, straight):
    project = shop_of(tmp_path)
    log, store = written(project), VersionStore(project)
    for end in range(1, ROWS // RECORD + 1):
        trainer = TrainerShard(project, log, store, 0)
        trainer.train(end, threading.Event())
        trainer.close()
    replaced = commits_of(project)
    assert [commit.price for commit in replaced] == [commit.price for commit in straight]
    assert [commit.delta for commit in replaced] == [commit.delta for commit in straight]
    assert [commit.quality for commit in replaced] == [commit.quality for commit in straight]
    assert len({commit.price["correction"] for commit in straight}) > 5


def test_correction_follows_from_predictions_of_serving_and_trainer_on_the_next_batch(tmp_path, straight):
    project = shop_of(tmp_path)
    samples, checked = make_samples(1, ROWS), 0
    for number, (before, after) in enumerate(pairwise(straight), start=1):
        batch = samples.slice(number * RECORD, 64)
        measured = divergence(project, before, batch)
        wanted = Price.of(before.price).corrected(measured, project.config.publish.loss)
        assert after.price["correction"] == pytest.approx(wanted.correction, rel=5e-3)
        checked += wanted.correction != before.price["correction"]
    assert checked > 5


def test_a_version_carries_what_was_measured_of_the_one_before(tmp_path, straight):
    project = shop_of(tmp_path)
    samples = make_samples(1, ROWS)
    assert (straight[0].quality.measured_loss, straight[0].quality.calibration) == (None, {})
    for number, (before, after) in enumerate(pairwise(straight), start=1):
        batch = samples.slice(number * RECORD, 64)
        measured, _, served = compared(project, before, batch)
        # The trainer has the initial rows of keys that are new with the batch.
        assert after.quality.measured_loss == pytest.approx(measured, rel=0.04, abs=1e-9)
        clicks = batch.column("label").to_numpy().sum()
        assert after.quality.calibration == {"label": pytest.approx(served.sum() / clicks, rel=1e-4)}


def test_the_scale_of_dense_weights_follows_from_predictions_by_them_and_the_rows_of_the_trainer(tmp_path, straight):
    project = shop_of(tmp_path)
    samples = make_samples(1, ROWS)
    for number, (before, after) in enumerate(pairwise(straight), start=1):
        measured = compared(project, before, samples.slice(number * RECORD, 64), rows_of="trainer")[0]
        wanted = Price.of(before.price).corrected(1.0, project.config.publish.loss, measured)
        assert after.price["dense_scale"] == pytest.approx(wanted.dense_scale, rel=5e-3)
        assert before.price["dense_scale"] != after.price["dense_scale"]
        assert 0 < before.price["dense_estimate"] <= before.price["estimate"]


def test_a_version_carries_what_it_predicts_and_withholds(straight):
    for commit in straight:
        assert commit.quality.predicted_loss == Price.of(commit.price).predicted
        assert (commit.quality.gate, commit.quality.held) == (None, False)
        for name, change in commit.fields.items():
            unserved = len(np.setdiff1d(change.keys, change.served_keys))
            assert 0 <= commit.quality.withheld[name] <= len(change.keys)
            assert commit.quality.withheld[name] >= unserved
    assert any(sum(commit.quality.withheld.values()) for commit in straight)


def divergence(project: Project, commit: Commit, batch: pa.RecordBatch) -> float:
    """What serving loses by its rows and dense weights of a version, relative to the trainer, by `serving`."""
    return compared(project, commit, batch)[0]


def compared(
    project: Project, commit: Commit, batch: pa.RecordBatch, rows_of: str = "serving"
) -> tuple[float, np.ndarray, np.ndarray]:
    """The loss of serving, with its rows or those of the trainer, and the predictions of trainer and serving."""
    predictor, plan = Predictor(project.config, project.root), FeaturePlan(project.config, project.root)
    features = plan.extract(batch, batch.column("impression_at").to_numpy())
    stored = {name: dict(zip(c.keys.tolist(), c.rows.copy().view(np.float32), strict=True)) for name, c in
              commit.fields.items()}  # fmt: skip
    zeros = {name: np.zeros(change.dim, np.float32) for name, change in commit.fields.items()}

    def trained(name: str, keys: np.ndarray) -> np.ndarray:
        rows = [stored[name][k][: len(zeros[name])] if k in stored[name] else zeros[name] for k in keys.tolist()]
        return np.array(rows, np.float32).reshape(len(keys), len(zeros[name]))

    views = {name: build_served_view(entries) for name, entries in served_entries(commit).items()}
    predictor.load(commit.dense)
    own = predictor.predict(features, trained).astype(np.float64)
    predictor.load(served_dense_of(commit))
    lookup = trained if rows_of == "trainer" else lambda name, keys: views[name].decode(keys)
    served = predictor.predict(features, lookup).astype(np.float64)
    loss = -own * np.log(served) - (1 - own) * np.log(1 - served)
    entropy = -own * np.log(own) - (1 - own) * np.log(1 - own)
    return float((loss - entropy).sum() / entropy.sum()), own, served


def served_entries(commit: Commit) -> dict[str, ServedEntries]:
    return {
        name: ServedEntries(c.dim, c.served_keys, c.served_handles, c.served_bits, c.served_payload)
        for name, c in commit.fields.items()
    }


def test_outputs_by_other_weights_are_those_of_a_network_that_has_them(tmp_path):
    project = shop_of(tmp_path)
    one, other = (DenseModel(project.config.model_copy(deep=True), project.root) for _ in range(2))
    inputs = np.random.default_rng(1).normal(0, 1, (9, one.layout.columns)).astype(np.float32)
    for _ in range(2):
        other.try_step()
    before = one.weights_bytes()
    np.testing.assert_allclose(one.outputs_by(other.serving_bytes(), inputs), other.outputs(inputs), rtol=1e-5)
    assert not np.allclose(one.outputs(inputs), other.outputs(inputs), rtol=1e-3)
    assert one.weights_bytes() == before


def test_a_model_without_a_logistic_label_is_not_corrected(tmp_path):
    labels = [{"name": "label", "loss": "squared"}]
    project = shop_of(tmp_path, labels=labels)
    train(project, written(project))
    assert {commit.price["correction"] for commit in commits_of(project)} == {1.0}
