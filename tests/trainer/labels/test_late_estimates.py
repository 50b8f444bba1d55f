"""A label whose late positives two outputs estimate, from the configuration to a replica without them."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.logs.open import open_log
from pipeline.serving.replica import Replica
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train, train_with_restarts

HEADS = """
import keras
from keras import layers

def build(inputs):
    x = layers.Dense(8, activation="relu")(layers.Concatenate()(list(inputs.values())))
    return keras.Model(inputs, {name: layers.Dense(1)(x) for name in ("label", "later", "fake")})
"""
DOCUMENT = WRITTEN | {
    "labels": [
        {"name": "label", "correction": "importance"},
        {"name": "later", "target": "label", "estimates": "delayed_positive"},
        {"name": "fake", "target": "label", "estimates": "fake_negative"},
    ],
    "parts": [{"name": "rate", "labels": ["label"]}],
}
ROWS, DELAY = 1_200, 60


def late_samples():
    """Samples of which every second click comes after a negative of its impression, and how many these are."""
    samples = make_samples(1, ROWS)
    late = np.flatnonzero((samples.column("label").to_numpy() == 1) & (np.arange(ROWS) % 2 == 0))
    rows = samples.to_pylist()
    order = [(i, row) for i, row in enumerate(rows)]
    for i in late.tolist():
        no_click = dict.fromkeys(("click_at", "click_partition", "click_offset", "click_row"))
        order[i] = (i, rows[i] | no_click | {"label": 0.0, "kind": "negative", "negative_written": True})
        order.append((i + DELAY, rows[i] | {"kind": "compensation", "negative_written": True}))
    ordered = [row for _, row in sorted(order, key=lambda each: each[0])]
    return pa.RecordBatch.from_pylist(ordered, schema=samples.schema), len(late)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project that was trained in one go, its log, CURRENT's digest and the trainer's validation."""
    project = make_project(tmp_path_factory.mktemp("late"), DOCUMENT, HEADS)
    with closing(open_log(project)) as log:
        append_samples(log, project, late_samples()[0])
        digest = train(project, log)
        yield project, log, digest, validation_of(project)


def validation_of(project):
    store = VersionStore(project)
    return store.manifest(store.current(0))["validation"]


def test_a_restart_changes_neither_the_model_nor_what_it_estimates(trained, tmp_path):
    project = make_project(tmp_path, DOCUMENT, HEADS)
    with closing(open_log(project)) as log:
        append_samples(log, project, late_samples()[0])
        assert train_with_restarts(project, log) == trained[2]
    assert {name: report["total"] for name, report in validation_of(project).items()} == {
        name: report["total"] for name, report in trained[3].items()
    }


def test_estimates_are_validated_as_labels_of_their_own(trained):
    label, later, fake = (trained[3][name]["total"] for name in ("label", "later", "fake"))
    late, early = late_samples()[1], label["positives"] - late_samples()[1]
    assert (later["positives"], later["negatives"]) == (late, ROWS - late)
    assert (fake["positives"], fake["negatives"]) == (late, ROWS - late - early)
    assert min(early, late) > 50


def test_a_replica_of_the_label_alone_predicts_the_bits_of_the_whole_model(trained):
    project, log, *_ = trained
    part = project.config.serving.model_copy(update={"part": "rate"})
    apart = replace(project, config=project.config.model_copy(update={"serving": part}))
    whole, alone = (Replica.for_predictions(each, log) for each in (project, apart))
    for replica in (whole, alone):
        replica.catch_up()
    rows = make_samples(2, 50).select(["user", "item", "tags"]).to_pylist()
    wanted, found = whole.predict(rows)[0], alone.predict(rows)[0]
    assert wanted.shape == (50, 3)
    assert found.tobytes() == np.ascontiguousarray(wanted[:, :1]).tobytes()
