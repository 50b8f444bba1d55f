"""The gate in a trainer: its state is a function of the log, and serving gets nothing learned while it is corrupted."""

import copy
import shutil
import threading

import numpy as np
import pyarrow as pa
import pytest

from pipeline.cli.commands.jobs.status import _collect, _summarize
from pipeline.logs.open import open_log
from pipeline.model.network.weights import served_part
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.replica import Replica
from pipeline.trainer.commit.full_on_command import publish_full
from pipeline.trainer.run.shard import TrainerShard
from pipeline.trainer.validation.gate.gate import GATE
from pipeline.versions.deltas.delta import UNCHANGED, decode_delta, served_dense_of
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import (
    MODEL,
    START_MS,
    WRITTEN,
    append_samples,
    make_project,
    make_samples,
    train,
    train_with_restarts,
)

CLEAN, BAD = 5_000, 640
SETTINGS = {
    "false_alarm_every_samples": 1e4, "tolerance": 0.7, "total_tolerance": 0.7, "warm_up_samples": 1_000,
    "lag_samples": 1_000, "memory_samples": 5_000, "recover_samples": 2_000,
}  # fmt: skip


def written(every=5, dense="exact", **gate):
    document = copy.deepcopy(WRITTEN)
    document["train"]["commit_every_batches"] = every
    document["publish"] |= {"dense": dense, "loss": 1e-9}
    return {**document, "gate": {**SETTINGS, **gate}}


def with_bad_traffic(after=0, bad=BAD):
    """Clean samples, then some that all are clicks, then clean ones."""
    samples = make_samples(1, CLEAN + bad + after)
    label = np.array(samples["label"])
    label[CLEAN : CLEAN + bad] = 1
    place = samples.schema.get_field_index("label")
    return samples.set_column(place, "label", pa.array(label.astype(np.float32)))


def trained(root, samples, how=train, block_rows=100, **settings):
    project = make_project(root, written(**settings))
    log = open_log(project)
    append_samples(log, project, samples, block_rows=block_rows)
    how(project, log)
    return project, log, VersionStore(project)


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """After bad traffic at the end."""
    return trained(tmp_path_factory.mktemp("held"), with_bad_traffic(), on_corrupted="hold")


def continued(held, root, document):
    """A copy of the project that holds, under a configuration."""
    shutil.copytree(held[0].root, root)
    project = make_project(root, document)
    return project, open_log(project), VersionStore(project)


def deltas(log, shard=0):
    return [decode_delta(record.value) for record in log.read("deltas", shard, 0)]


def gate_of(store, shard=0):
    return store.restore(store.current(shard)).training_state[GATE]


def assert_followed(project, log, store):
    """A replica applies every delta."""
    replica = Replica(project, log)
    replica.catch_up()
    assert replica.digest() == store.restore(store.current(0)).served_digest
    assert not any(replica.status()["shards"][0]["refused"].values())


def rows(delta):
    return sum(len(change) for change in delta.fields.values())


def test_what_is_learned_from_bad_traffic_is_held_from_serving(held):
    _, log, store = held
    *healthy, last, one, two = deltas(log)
    assert all(rows(delta) > 0 for delta in healthy)
    assert [rows(delta) for delta in (last, one, two)] == [0, 0, 0]
    assert last.dense == one.dense == two.dense == healthy[-1].dense
    commit = store.restore(store.current(0))
    assert served_part(commit.dense) != two.dense
    assert (commit.quality.gate, commit.quality.held) == ("corrupted", True)
    assert (commit.quality.measured_loss, commit.quality.calibration) == (None, {})
    assert sum(commit.quality.withheld.values()) > 0


def test_the_status_of_the_project_shows_what_is_held_and_why(held):
    project, log, _ = held
    status = _collect(project, log)
    assert status["trainer"][0]["gate"] == "corrupted"
    shown = _summarize(status, now_ms=0)
    assert shown["trainer"][0]["gate"] == "corrupted"
    assert shown["warnings"] == [
        "the gate of shard 0 is corrupted: realtime deltas send no rows. hint: runbooks/incidents/gate.md"
    ]


def test_a_replica_follows_the_chain_of_held_deltas(held):
    assert_followed(*held)


def test_the_state_is_a_function_of_the_log_whatever_stops_or_commits(held, tmp_path):
    _, _, store = held
    _, _, other = trained(tmp_path, with_bad_traffic(), train_with_restarts, every=3, on_corrupted="hold")
    assert gate_of(other) == gate_of(store)


def taken_over_at_every_commit(project, log):
    """Every 20 batches of one record another trainer takes the shard over."""
    former, store, end = None, VersionStore(project), log.end_offset("samples", 0)
    for stop in (*range(20, end, 20), end):
        trainer = TrainerShard(project, log, store, 0)
        if former:
            former.close()
        trainer.train(stop, threading.Event())
        former = trainer
    former.close()


def test_a_trainer_that_is_taken_over_at_every_commit_holds_the_same(tmp_path):
    settings = {"every": 20, "block_rows": 64, "on_corrupted": "hold"}
    _, log, store = trained(tmp_path / "one", with_bad_traffic(), **settings)
    _, other_log, other = trained(tmp_path / "other", with_bad_traffic(), taken_over_at_every_commit, **settings)
    assert [r.value for r in other_log.read("deltas", 0, 0)] == [r.value for r in log.read("deltas", 0, 0)]
    assert gate_of(other) == gate_of(store)
    assert rows(deltas(log)[-1]) == 0


def until_the_bad_traffic(project, log):
    trainer = TrainerShard(project, log, VersionStore(project), 0)
    trainer.train((CLEAN + BAD) // 100, threading.Event())
    trainer.close()


def test_a_replay_without_the_bad_traffic_has_the_state_of_a_log_without_it(tmp_path):
    samples = with_bad_traffic(after=760)
    settings = {"dense": "priced", "on_corrupted": "hold"}
    project, log, store = trained(tmp_path / "bad", samples, until_the_bad_traffic, **settings)
    *_, last = deltas(log)
    assert rows(last) == 0
    assert last.dense == UNCHANGED
    assert_followed(project, log, store)
    from_ms, to_ms = START_MS + CLEAN * 1000, START_MS + (CLEAN + BAD) * 1000
    roll_back(project, log, plan_rollback(project, log, before_ms=from_ms, quarantine_ms=(from_ms, to_ms)))
    train(project, log)
    clean = pa.concat_batches([samples.slice(0, CLEAN), samples.slice(CLEAN + BAD)])
    _, _, without = trained(tmp_path / "clean", clean, on_corrupted="hold")
    assert gate_of(store) == gate_of(without)
    assert rows(deltas(log)[-1]) > 0
    assert_followed(project, log, store)


def test_the_gate_may_be_turned_off_while_it_holds(held, tmp_path):
    document = written(every=5)
    del document["gate"]
    project, log, store = continued(held, tmp_path / "off", document)
    append_samples(log, project, make_samples(2, 640, first=CLEAN + BAD))
    train(project, log)
    assert rows(deltas(log)[-1]) > 0
    assert GATE not in store.restore(store.current(0)).training_state
    assert_followed(project, log, store)


def test_a_full_on_command_sends_what_is_held_and_the_dense_weights_too(held, tmp_path):
    project, log, store = continued(held, tmp_path / "full", written(every=5, on_corrupted="hold"))
    before = deltas(log)[-1].dense
    publish_full(project, log, store, 0)
    commit = store.restore(store.current(0))
    assert served_dense_of(commit) == served_part(commit.dense) != before
    assert commit.fields["user"].served_keys.tolist() == commit.fields["user"].keys.tolist()
    assert (sum(commit.quality.withheld.values()), commit.quality.held) == (0, False)
    assert_followed(project, log, store)


def test_the_first_version_is_never_held(tmp_path):
    _, log, store = trained(tmp_path, with_bad_traffic(), every=1_000_000, on_corrupted="hold")
    assert len(deltas(log)) == 1
    assert rows(deltas(log)[0]) > 0
    commit = store.restore(store.current(0))
    assert served_dense_of(commit) == served_part(commit.dense)


def test_every_shard_has_a_state_of_its_own(tmp_path):
    document = {**written(on_corrupted="hold"), "logs": {"shards": 2}}
    project = make_project(tmp_path, document)
    log = open_log(project)
    for shard, samples in enumerate((make_samples(1, CLEAN + BAD), with_bad_traffic())):
        append_samples(log, project, samples, shard)
        train(project, log, shard)
    assert [rows(deltas(log, shard)[-1]) > 0 for shard in range(2)] == [True, False]


@pytest.mark.parametrize(("label", "holds"), [("label", True), ("liked", False)])
def test_one_of_several_labels_is_tested(tmp_path, label, holds):
    document = written(on_corrupted="hold", label=label)
    document["samples"] = {"labels": ["label", "liked"]}
    document["events"]["clicks"]["columns"]["liked"] = "float"
    project = make_project(tmp_path, document, MODEL.replace("Dense(1)", "Dense(2)"))
    log, samples = open_log(project), with_bad_traffic()
    append_samples(log, project, samples.append_column("liked", make_samples(1, CLEAN + BAD)["label"]))
    train(project, log)
    assert (rows(deltas(log)[-1]) == 0) == holds


def test_the_gate_changes_nothing_of_what_is_learned(held, tmp_path):
    _, _, store = held
    document = copy.deepcopy(WRITTEN)
    project = make_project(tmp_path, document)
    log = open_log(project)
    append_samples(log, project, with_bad_traffic())
    assert train(project, log) == store.ledger.version(store.current(0)).digest


def test_the_status_has_the_state(held):
    project, log, store = held
    trainer = TrainerShard(project, log, store, 0)
    try:
        trainer.train(log.end_offset("samples", 0), threading.Event())
        assert trainer.status()["gate"]["state"] != "healthy"
    finally:
        trainer.close()
