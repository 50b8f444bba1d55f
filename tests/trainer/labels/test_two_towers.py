"""Two towers from the configuration to a replica of one of them: restarts, rollback, scores and served vectors."""

import copy
import json
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.replica import Replica
from pipeline.serving.rest.api import RestApi
from pipeline.trainer.run.evaluation import evaluate_shards
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train, train_with_restarts

TOWERS = """
import keras
from keras import layers

def build(inputs):
    user = layers.Dense(6)(inputs["user"])
    item = layers.Dense(6)(layers.Concatenate()([inputs["item"], inputs["tags"]]))
    return keras.Model(inputs, {"user": user, "item": item})
"""
SETTINGS = {"item_column": "item", "temperature": 0.5, "normalise": True, "negatives": 16, "reservoir": 20}
ROWS = 1_000


def shop_of(root: Path, **sections: Any) -> Project:
    document = copy.deepcopy(WRITTEN) | sections
    document["labels"] = [{"name": "label", "loss": "in_batch", "towers": SETTINGS}]
    document["parts"] = [{"name": name, "labels": [name]} for name in ("user", "item")]
    return make_project(root, document, TOWERS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project that was trained in one go, its log, and CURRENT's digest."""
    project = shop_of(tmp_path_factory.mktemp("towers"))
    with closing(open_log(project)) as log:
        append_samples(log, project, make_samples(1, ROWS))
        yield project, log, train(project, log)


def test_a_restart_changes_neither_tower_nor_the_state_of_its_items(trained, tmp_path):
    project = shop_of(tmp_path)
    with closing(open_log(project)) as log:
        append_samples(log, project, make_samples(1, ROWS))
        assert train_with_restarts(project, log) == trained[2]
        before = VersionStore(trained[0])
        states = [
            each.restore(each.current(0)).training_state["candidates"] for each in (before, VersionStore(project))
        ]
        assert states[0] == states[1]


def test_a_rolled_back_version_continues_with_the_items_of_its_target(trained, tmp_path):
    project = shop_of(tmp_path)
    with closing(open_log(project)) as log:
        append_samples(log, project, make_samples(1, ROWS))
        train(project, log)
        store = VersionStore(project)
        undone = store.restore(store.current(0))
        report = roll_back(project, log, _to_the_second_version(project, log, store))
        restored = store.restore(store.current(0))
        target = store.restore(VersionId.parse(report.shards[0].target))
        assert restored.id.generation == 1
        assert restored.training_state["candidates"] == target.training_state["candidates"]
        assert restored.training_state["candidates"] != undone.training_state["candidates"]
        assert train(project, log) == trained[2]


def _to_the_second_version(project, log, store):
    """A plan that quarantines no sample."""
    to = store.lineage(0)[1].id
    return plan_rollback(project, log, to=to, quarantine_ms=(1, 2))


def test_progressive_validation_has_loss_and_recall_of_the_positives(trained):
    project = trained[0]
    store = VersionStore(project)
    total = store.restore(store.current(0)).validation["label"]["total"]
    clicks = sum(make_samples(1, ROWS).column("label").to_pylist())
    assert (total["samples"], total["positives"]) == (ROWS, clicks)
    assert 0 < total["recall"] < 1
    assert 1 < total["loss"] < np.log(64 + 16) + 1


def test_a_replica_of_one_tower_holds_its_rows_alone_and_returns_the_bits_of_the_whole_model(trained):
    project, log, _ = trained
    whole = Replica.for_predictions(project, log)
    whole.catch_up()
    rows = make_samples(2, 50).select(["user", "item", "tags"]).to_pylist()
    wanted, version = whole.predict(rows)
    assert wanted.shape == (50, 1 + 6 + 6)
    scores, user, item = wanted[:, 0], wanted[:, 1:7], wanted[:, 7:]
    np.testing.assert_allclose(scores, (user * item).sum(axis=1) / 0.5, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(item, axis=1), 1, rtol=1e-5)
    for name, read, of_whole in (("user", ["user"], user), ("item", ["item", "tags"], item)):
        serving = project.config.serving.model_copy(update={"part": name})
        apart = replace(project, config=project.config.model_copy(update={"serving": serving}))
        tower = Replica.for_predictions(apart, log)
        tower.catch_up()
        found, same = tower.predict([{column: row[column] for column in read} for row in rows])
        assert found.tobytes() == np.ascontiguousarray(of_whole).tobytes()
        assert version == same
        assert set(tower.status()["shards"][0]["rows"]) == set(read)
        assert (apart.config.served_names, apart.config.served_vectors) == ((), (name,))


def test_predictions_are_objects_with_a_list_for_each_vector(trained):
    project, log, _ = trained
    replica = Replica.for_predictions(project, log)
    replica.catch_up()
    api = RestApi(replica, project.config, project.clock)
    body = json.dumps({"instances": [{"user": "u1", "item": "i1", "tags": ["t1"]}]}).encode()
    (prediction,) = json.loads(api.predict(body, lambda: None).body)["predictions"]
    assert {name: np.shape(value) for name, value in prediction.items()} == {"label": (), "user": (6,), "item": (6,)}
    read = json.loads(api.read("/v1/models/shop/metadata", lambda: None).body)["metadata"]["signature_def"][
        "signature_def"
    ]
    assert list(read["serving_default"]["outputs"]) == ["label", "user", "item"]


def test_the_newest_samples_are_scored_among_each_other(trained):
    project, log, _ = trained
    store = VersionStore(project)
    (scored,) = evaluate_shards(project, log, [store.current(0)], 200)
    found = scored.losses(scored.inputs)
    assert found.shape == (200,)
    assert np.isfinite(found).all()
    assert found.max() > 0


class Killed(Exception):
    """In place of the end of a process."""


class KilledAfter(threading.Event):
    """The stop event of a trainer that dies after so many batches, with what it has not committed."""

    def __init__(self, trainer: TrainerShard, batches: int) -> None:
        super().__init__()
        self._trainer, self._batches = trainer, batches

    def is_set(self) -> bool:
        if self._trainer.batches >= self._batches:
            raise Killed
        return False


def test_trainers_that_die_between_commits_end_with_the_same_model_and_items_also_with_shuffled_samples(tmp_path):
    found = []
    for name, kills in (("straight", ()), ("killed", (1, 3, 5))):
        project = shop_of(tmp_path / name, train=WRITTEN["train"] | {"shuffle_window": 128, "commit_every_batches": 3})
        with closing(open_log(project)) as log:
            append_samples(log, project, make_samples(1, 700))
            store = VersionStore(project)
            for batches in kills:
                trainer = TrainerShard(project, log, store, 0)
                with pytest.raises(Killed):
                    trainer.train(log.end_offset("samples", 0), KilledAfter(trainer, batches))
                trainer.close()
            digest = train(project, log)
            found.append((digest, store.restore(store.current(0)).training_state["candidates"]))
    assert found[0] == found[1]
