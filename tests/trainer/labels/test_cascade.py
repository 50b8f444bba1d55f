"""A coarse ranker beside the fine one, from the configuration to a replica of the coarse one alone."""

import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from pipeline.logs.open import open_log
from pipeline.serving.replica import Replica
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.support.world.shop import WRITTEN, append_samples, make_project, make_samples, train

CASCADE = """
import keras
from keras import layers

def build(inputs):
    fine = layers.Dense(8, activation="relu")(layers.Concatenate()(list(inputs.values())))
    coarse = layers.Multiply()([layers.Dense(3)(inputs[name]) for name in ("user", "item")])
    return keras.Model(inputs, {"label": layers.Dense(1)(fine), "coarse": layers.Dense(1)(coarse)})
"""
DOCUMENT = WRITTEN | {
    "labels": [{"name": "label"}, {"name": "coarse", "target": "label", "teacher": "label", "distill": 0.5}],
    "parts": [{"name": "pre", "labels": ["coarse"]}],
}
ROWS = 1_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project that was trained in one go, its log, and CURRENT's digest."""
    project = make_project(tmp_path_factory.mktemp("cascade"), DOCUMENT, CASCADE)
    with closing(open_log(project)) as log:
        append_samples(log, project, make_samples(1, ROWS))
        yield project, log, train(project, log)


def test_a_restart_changes_neither_ranker(trained, tmp_path):
    project = make_project(tmp_path, DOCUMENT, CASCADE)
    with closing(open_log(project)) as log:
        append_samples(log, project, make_samples(1, ROWS))
        store, end = VersionStore(project), log.end_offset("samples", 0)
        for stop_offset in (end // 3, end // 2):
            trainer = TrainerShard(project, log, store, 0)
            trainer.train(stop_offset, threading.Event())
            trainer.close()
        assert train(project, log) == trained[2]


def test_a_replica_of_the_coarse_ranker_predicts_the_bits_of_the_whole_model(trained):
    project, log, _ = trained
    part = project.config.serving.model_copy(update={"part": "pre"})
    apart = replace(project, config=project.config.model_copy(update={"serving": part}))
    whole, coarse = (Replica.for_predictions(each, log) for each in (project, apart))
    for replica in (whole, coarse):
        replica.catch_up()
    rows = make_samples(2, 100).select(["user", "item", "tags"]).to_pylist()
    wanted, version = whole.predict(rows)
    found, same = coarse.predict([{name: row[name] for name in ("user", "item")} for row in rows])
    assert found.tobytes() == np.ascontiguousarray(wanted[:, 1:]).tobytes()
    assert version == same
    assert len(np.unique(found)) > 20
    rows_of = [replica.status()["shards"][0]["rows"] for replica in (whole, coarse)]
    assert rows_of[1] == {name: count for name, count in rows_of[0].items() if name != "tags"}
    assert coarse.digest() == whole.digest()
    assert coarse.status()["shards"][0]["refused"] == {}
