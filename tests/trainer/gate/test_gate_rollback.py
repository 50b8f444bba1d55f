"""With `gate.on_corrupted = "rollback"` training and serving return by themselves to before bad traffic."""

import signal
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pipeline.logs.open import open_log
from pipeline.process import crash_point
from pipeline.serving.replica import Replica
from pipeline.trainer.run.in_process import TrainJob
from pipeline.trainer.run.shard_session import ShardSession
from pipeline.trainer.validation.gate.gate import without_evidence
from pipeline.versions.store.version_store import VersionStore
from tests.support.command.forked import exit_code_of
from tests.support.shop.shop import append_samples, make_project, make_samples
from tests.trainer.gate.test_gate import (
    BAD,
    CLEAN,
    assert_followed,
    deltas,
    gate_of,
    rows,
    with_bad_traffic,
    written,
)

AFTER = 2_500


def prepared(root, samples, **settings):
    project = make_project(root, written(on_corrupted="rollback", **settings))
    log = open_log(project)
    append_samples(log, project, samples, block_rows=100)
    return project, log, VersionStore(project)


def train_to_the_end(project, log, sessions=1):
    """As the train job in process, with so many starts."""
    for _ in range(sessions):
        job = TrainJob(project, log)
        try:
            while job.round():
                pass
            job.round()
        finally:
            job.close()


def bad_times(samples):
    """(first, last) time of the bad samples."""
    at_ms = np.maximum(samples.column("impression_at").cast("int64").to_numpy(), 0)[CLEAN : CLEAN + BAD]
    return int(at_ms.min()), int(at_ms.max())


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory):
    """After bad traffic between clean samples."""
    world = prepared(tmp_path_factory.mktemp("rolled-back"), with_bad_traffic(AFTER), rollbacks_per_day=10)
    train_to_the_end(*world[:2])
    return world


def active(store):
    return store.ledger.quarantines.active(0).entries


def test_a_corrupted_shard_returns_to_the_version_before_the_bad_samples(rolled_back):
    _, _, store = rolled_back
    first, *others = store.ledger.rollbacks()
    assert {(record.state, record.document["gate_of"]) for record in (first, *others)} == {("done", 0)}
    target = store.ledger.version(first.targets[0])
    assert target.last_at_ms < bad_times(with_bad_traffic(AFTER))[0]
    assert CLEAN - 1_000 < target.samples_seen <= CLEAN
    assert first.document["reason"].startswith("gate of shard 0 is corrupted as of ")
    assert store.current(0).generation == 1 + len(others)


def test_bad_samples_are_quarantined_as_they_are_learned_and_training_goes_on(rolled_back):
    _, _, store = rolled_back
    first, last = bad_times(with_bad_traffic(AFTER))
    ranges = [quarantine.times_ms for quarantine in active(store)]
    assert ranges[0][0] <= first
    # The last bad samples may be too few to be found.
    assert first + 0.8 * (last - first) < ranges[-1][1]
    assert all(end >= begin for (_, end), (begin, _) in pairwise(ranges))
    assert store.ledger.version(store.current(0)).samples_seen > CLEAN + 0.8 * AFTER
    assert without_evidence(gate_of(store))


def test_a_replica_follows_through_the_rollback(rolled_back):
    assert_followed(*rolled_back)
    assert rows(deltas(rolled_back[1])[-1]) > 0


def test_the_model_is_that_of_a_training_without_the_quarantined_samples(rolled_back, tmp_path):
    _, _, store = rolled_back
    project, log, other = prepared(tmp_path, with_bad_traffic(AFTER))
    for quarantine in active(store):
        other.ledger.quarantines.add(replace(quarantine, id=0))
    train_to_the_end(project, log)
    assert not other.ledger.rollbacks()
    assert other.restore(other.current(0)).digest == store.restore(store.current(0)).digest


def crash_at(root, point):
    crash_point.arm_crash_point(point)
    project = make_project(root, written(on_corrupted="rollback", rollbacks_per_day=10))
    train_to_the_end(project, open_log(project))


@pytest.mark.parametrize("point", ["rollback.after_plan", "rollback.after_delta"])
def test_a_trainer_killed_in_its_rollback_completes_it_at_the_next_start(rolled_back, tmp_path, point):
    _, _, store = rolled_back
    project, log, other = prepared(tmp_path, with_bad_traffic(AFTER), rollbacks_per_day=10)
    assert exit_code_of(crash_at, project.root, point) == -signal.SIGKILL
    assert other.ledger.unfinished_rollbacks()
    train_to_the_end(project, log)
    documents = [record.document for record in other.ledger.rollbacks()]
    assert documents == [record.document for record in store.ledger.rollbacks()]
    assert other.restore(other.current(0)).digest == store.restore(store.current(0)).digest


def test_after_too_many_rollbacks_in_a_day_the_state_is_held(tmp_path):
    project, log, store = prepared(tmp_path, with_bad_traffic(AFTER), rollbacks_per_day=1)
    append_samples(log, project, with_bad_traffic(AFTER).slice(CLEAN, BAD), block_rows=100)
    stop, end = threading.Event(), log.end_offset("samples", 0)
    session = ShardSession(project, log, store, 0)
    session.train(stop, end)
    assert session.opened().held
    assert session.gate_rollbacks == 1
    session.close()
    assert len(store.ledger.rollbacks()) == 1
    assert store.ledger.version(store.current(0)).offset == end
    assert rows(deltas(log)[-1]) == 0


def test_all_shards_return_and_catch_up(tmp_path):
    document = {**written(on_corrupted="rollback", rollbacks_per_day=10), "logs": {"shards": 2}}
    project = make_project(tmp_path, document)
    log = open_log(project)
    for shard, samples in enumerate((make_samples(1, CLEAN + BAD + AFTER), with_bad_traffic(AFTER))):
        append_samples(log, project, samples, shard)
    train_to_the_end(project, log)
    store = VersionStore(project)
    assert {record.document["gate_of"] for record in store.ledger.rollbacks()} == {1}
    for shard in range(2):
        current = store.ledger.version(store.current(shard))
        assert current.id.generation == len(store.ledger.rollbacks())
        assert current.offset == log.end_offset("samples", shard)
        assert CLEAN + 0.8 * AFTER < current.samples_seen < CLEAN + BAD + AFTER
    replica = Replica(project, log)
    replica.catch_up()
    assert not any(shard["refused"][reason] for shard in replica.status()["shards"] for reason in shard["refused"])
