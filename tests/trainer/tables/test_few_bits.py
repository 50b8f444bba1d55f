"""Tables that are trained for few bits: serving holds what training read, across restarts, migration and fulls."""

import copy

import numpy as np
import pytest

from pipeline.configuration.model.tables import tables_of
from pipeline.errors import MigrationError
from pipeline.logs.open import open_log
from pipeline.serving.replica import Replica
from pipeline.trainer.commit.full_on_command import publish_full
from pipeline.trainer.run.evaluation import evaluate_shards
from pipeline.trainer.tables.table import row_dtype, state_floats
from pipeline.versions.deltas.rounding import RowRounding, as_read
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import (
    WRITTEN,
    append_samples,
    make_project,
    make_samples,
    train,
    train_with_restarts,
)
from tests.support.world.in_memory_trainer import InMemoryTrainer

LEARNED, NEW = 640, 64


def document(goods="ternary", below=None, **publish):
    written = copy.deepcopy(WRITTEN)
    written["tables"] = [{"name": "goods", "dim": 4, "quantise": goods, "quantise_below": below}]
    written["fields"] = [
        {"name": "user", "columns": ["user"], "dim": 16, "quantise": 4},
        {"name": "item", "columns": ["item"], "table": "goods"},
        {"name": "seen", "columns": ["item"], "table": "goods", "pooling": "max"},
        {"name": "tags", "columns": ["tags"], "dim": 2, "pooling": "mean", "quantise": 1},
    ]
    written["publish"] |= {"loss": 1e-9, **publish}
    return written


def world_at(root, written):
    """A project whose version has learned from 640 samples, with 64 more in the log."""
    project = make_project(root, written)
    log = open_log(project)
    append_samples(log, project, make_samples(1, LEARNED))
    train(project, log)
    append_samples(log, project, make_samples(1, NEW, first=LEARNED))
    return project, log


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return world_at(tmp_path_factory.mktemp("few"), document())


def packed_rows(project, name):
    """(keys [n], rows [n] structured) of CURRENT."""
    store = VersionStore(project)
    change, table = store.restore(store.current(0)).fields[name], tables_of(project.config.fields)[name]
    dtype = row_dtype(table.dim, state_floats(table.optimizer, table.dim))
    return change.keys, change.rows.view(dtype).reshape(len(change.keys))


def caught_up(project, log):
    replica = Replica.for_predictions(project, log)
    replica.catch_up()
    store = VersionStore(project)
    assert replica.digest() == store.ledger.version(store.current(0)).served_digest
    return replica


def served_inputs(replica, samples):
    predictor = replica.load_predictor()
    instances = samples.select(["user", "item", "tags"]).to_pylist()
    return predictor.inputs(predictor.features(instances, 0), replica.lookup)


def test_serving_holds_the_rows_that_training_reads(world):
    project, log = world
    replica = caught_up(project, log)
    for name, rounding in (("user", RowRounding(4)), ("goods", RowRounding("ternary")), ("tags", RowRounding(1))):
        keys, rows = packed_rows(project, name)
        np.testing.assert_array_equal(replica.lookup(name, keys), as_read(rows, rounding))
        assert (as_read(rows, rounding) != rows["weights"]).any(axis=1).all()


def test_training_evaluation_and_serving_give_the_network_the_same_bits(world, tmp_path):
    project, log = world
    served = served_inputs(caught_up(project, log), make_samples(1, NEW, first=LEARNED))
    store = VersionStore(project)
    [scored] = evaluate_shards(project, log, [store.current(0)], NEW)
    np.testing.assert_array_equal(scored.inputs, served)
    trainer = InMemoryTrainer(make_project(tmp_path, document()))
    trainer.learn(make_samples(1, LEARNED))
    before = trainer.progress.validation()["label"]["total"]
    trainer.learn(make_samples(1, NEW, first=LEARNED))
    np.testing.assert_array_equal(trainer.inputs[-1], served)
    after = trainer.progress.validation()["label"]["total"]
    learned = (after["log_loss"] * after["samples"] - before["log_loss"] * before["samples"]) / NEW
    assert scored.losses(scored.inputs).mean() == pytest.approx(learned, rel=1e-5)


def test_restarts_change_no_byte(world, tmp_path):
    project, _ = world
    other = make_project(tmp_path, document())
    other_log = open_log(other)
    append_samples(other_log, other, make_samples(1, LEARNED))
    train_with_restarts(other, other_log)
    for name in ("user", "goods", "tags"):
        for ours, theirs in zip(packed_rows(project, name), packed_rows(other, name), strict=True):
            assert ours.tobytes() == theirs.tobytes()


def test_rows_from_an_importance_on_are_read_and_served_as_they_are(world, tmp_path):
    below = float(np.median(packed_rows(world[0], "goods")[1]["importance"]))
    project, log = world_at(tmp_path, document(below=below))
    keys, rows = packed_rows(project, "goods")
    few = rows["importance"] < np.float32(below)
    assert few.any()
    assert not few.all()
    served = caught_up(project, log).lookup("goods", keys)
    np.testing.assert_array_equal(served[few], as_read(rows, RowRounding("ternary"))[few])
    np.testing.assert_allclose(served[~few], rows["weights"][~few], rtol=0.2, atol=0.02)
    [scored] = evaluate_shards(project, log, [VersionStore(project).current(0)], 100)
    read = as_read(rows, RowRounding("ternary", below))
    np.testing.assert_array_equal(read[~few], rows["weights"][~few])
    assert (scored.inputs[:, 16:20, None] == read.T[None]).all(axis=1).any(axis=1).all()


def test_other_bits_keep_the_rows_and_need_a_migration(tmp_path):
    project, log = world_at(tmp_path, document())
    before = packed_rows(project, "goods")
    changed = make_project(tmp_path, document(goods=2))
    with pytest.raises(
        MigrationError, match="table goods of version g0/s0-of-1/2 is not as the configuration declares"
    ):
        publish_full(changed, log, VersionStore(changed), 0)
    with pytest.raises(MigrationError, match=r"table goods changed\. hint: .* keep their rows: goods, tags, user;"):
        train(changed, log)
    train(changed, log, migrate=True)
    keys, rows = packed_rows(changed, "goods")
    assert set(before[0]) <= set(keys)
    assert rows["count"].sum() == before[1]["count"].sum() + 2 * NEW
    np.testing.assert_array_equal(caught_up(changed, log).lookup("goods", keys), as_read(rows, RowRounding(2)))
