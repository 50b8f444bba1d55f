"""A coarse ranker beside the fine one, from the configuration to a replica of the coarse one alone."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.logs.open import open_log
from pipeline.model.network.weights import unpack
from pipeline.serving.replica import Replica
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train, train_with_restarts

CASCADE = """
import keras
from keras import layers

def build(inputs):
    fine = layers.Dense(8, activation="relu")(layers.Concatenate()(list(inputs.values())))
    coarse = layers.Multiply()([layers.Dense(3)(inputs[name]) for name in ("user", "item")])
    return keras.Model(inputs, {"label": layers.Dense(1)(fine), "coarse": layers.Dense(1)(coarse)})
"""
COARSE = {"name": "coarse", "target": "label", "teacher": "label", "distill": 0.5}
OF_LISTS = {"candidates": True, "list_column": "request", "listwise": 0.5, "top": {"k": 2, "m": 5}}
DOCUMENT = WRITTEN | {
    "events": WRITTEN["events"]
    | {"impressions": {"columns": WRITTEN["events"]["impressions"]["columns"] | {"request": "int", "price": "float"}}}
    | {"candidates": {"columns": {"id": "int", "item": "string", "fine": "float"}, "score": "fine"}},
    "samples": {"policy": "close"},
    "publish": WRITTEN["publish"] | {"loss": 1e-9},
    "dense": [{"name": "price", "column": "price", "normalise": True}],
    "labels": [{"name": "label", "list_column": "request", "top": {"k": 2, "m": 5}}, COARSE | OF_LISTS],
    "parts": [{"name": "pre", "labels": ["coarse"]}],
}
ROWS, LIST, SHOWN = 1_000, 10, 4


def requests(seed: int) -> pa.RecordBatch:
    """Samples in requests of ten, which a batch of 64 cuts; four of ten are impressions, the others candidates."""
    samples = make_samples(seed, ROWS)
    unshown, none = pa.array(np.arange(ROWS) % LIST >= SHOWN), {"kind": "candidate"}
    columns = {name: samples.column(name) for name in samples.schema.names}
    for name in ("label", "click_at", "click_partition", "click_offset", "click_row", "kind"):
        other = pa.scalar(none.get(name), columns[name].type)
        columns[name] = pc.if_else(unshown, other, columns[name])
    scores = np.random.default_rng(seed).random(ROWS).astype(np.float32)
    columns["candidate_score"] = pc.if_else(unshown, pa.array(scores), pa.scalar(None, pa.float32()))
    columns["price"] = pc.if_else(unshown, pa.scalar(None, pa.float64()), pa.array(10.0 + np.arange(ROWS) % LIST))
    columns["request"] = pa.array(np.arange(ROWS) // LIST)
    return pa.RecordBatch.from_pydict(columns)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project that was trained in one go, its log, and CURRENT's digest."""
    project = make_project(tmp_path_factory.mktemp("cascade"), DOCUMENT, CASCADE)
    with closing(open_log(project)) as log:
        append_samples(log, project, requests(1))
        yield project, log, train(project, log)


def test_a_restart_changes_neither_ranker(trained, tmp_path):
    project = make_project(tmp_path, DOCUMENT, CASCADE)
    with closing(open_log(project)) as log:
        append_samples(log, project, requests(1))
        assert train_with_restarts(project, log) == trained[2]
    one, two = (VersionStore(each) for each in (trained[0], project))
    states = [store.restore(store.current(0)).training_state for store in (one, two)]
    assert states[0] == states[1]


def test_candidates_are_learned_and_not_scored_and_lists_are_ranked_whole(trained):
    store = VersionStore(trained[0])
    found = store.manifest(store.current(0))["validation"]
    for label in ("label", "coarse"):
        total = found[label]["total"]
        assert total["samples"] == ROWS // LIST * SHOWN
        assert total["lists"] == ROWS // LIST - 1  # the last one is open
        assert 0 < total["hit_rate"] < 1
    assert found["label"]["total"]["top_share"] is None
    assert 0.5 < found["coarse"]["total"]["top_share"] < 1
    assert found["coarse"]["windows"][-1]["hit_rate"] > 0
    assert store.restore(store.current(0)).samples_seen == ROWS


def test_candidates_do_not_move_the_statistics_of_dense_inputs(trained):
    store = VersionStore(trained[0])
    dense = unpack(store.restore(store.current(0)).dense)
    [[count, mean, _]] = [array[:, 0] for name, array in dense.items() if name.startswith("scaling/")]
    assert (count, mean) == (ROWS // LIST * SHOWN, pytest.approx(10 + np.arange(SHOWN).mean()))


def test_a_replica_of_the_coarse_ranker_predicts_the_bits_of_the_whole_model(trained):
    project, log, _ = trained
    part = project.config.serving.model_copy(update={"part": "pre"})
    apart = replace(project, config=project.config.model_copy(update={"serving": part}))
    whole, coarse = (Replica.for_predictions(each, log) for each in (project, apart))
    for replica in (whole, coarse):
        replica.catch_up()
    rows = requests(2).slice(0, 100).select(["user", "item", "tags", "price"]).to_pylist()
    wanted, version = whole.predict(rows)
    found, same = coarse.predict([{name: row[name] for name in ("user", "item")} for row in rows])
    assert found.tobytes() == np.ascontiguousarray(wanted[:, 1:]).tobytes()
    assert version == same
    assert len(np.unique(found)) > 20
    rows_of = [replica.status()["shards"][0]["rows"] for replica in (whole, coarse)]
    assert rows_of[1] == {name: count for name, count in rows_of[0].items() if name != "tags"}
    assert coarse.digest() == whole.digest()
    assert coarse.status()["shards"][0]["refused"] == {}
