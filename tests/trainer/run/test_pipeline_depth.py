"""`train.pipeline_depth = 2`: rows learn one batch late, and the log alone decides what that comes to."""

import copy
import signal
import threading
from contextlib import closing

import numpy as np
import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import ConfigError, MigrationError
from pipeline.features.plan import FeaturePlan
from pipeline.logs.open import open_log
from pipeline.model.dense import DenseModel
from pipeline.model.identity import identity_of
from pipeline.process.clock import SystemClock
from pipeline.process.crash_point import arm_crash_point
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.trainer.commit.boundary_snapshot import LATE
from pipeline.trainer.run.in_process import run_train
from pipeline.trainer.run.shard import TrainerShard
from pipeline.trainer.run.shard_session import ShardSession
from pipeline.trainer.run.shard_threads import learn_for
from pipeline.trainer.tables.late_gradient import LateGradient
from pipeline.trainer.tables.table import row_dtype
from pipeline.versions.store.version_store import VersionStore
from tests.support.command.forked import exit_code_of
from tests.support.shop.shop import (
    START_MS,
    WRITTEN,
    append_samples,
    current_digest,
    make_project,
    make_samples,
    train,
    train_with_restarts,
)

ROWS = 1500
EXPIRY = {"ttl_s": 120, "sweep_every_s": 100}


def document(depth=2, expiry=None, rounded=False, **train_section):
    written = copy.deepcopy(WRITTEN)
    written["train"] |= {"pipeline_depth": depth, **train_section}
    if expiry:
        written["fields"][0]["expiry"] = expiry
    if rounded:
        written["fields"][1]["quantise"] = 4
    written["fields"][2]["pooling"] = "max"
    return written


def world(root, **settings):
    project = make_project(root, document(**settings))
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    return project, log


def digest_after(root, learn=train, **settings):
    project, log = world(root, **settings)
    with closing(log):
        return learn(project, log)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return digest_after(tmp_path_factory.mktemp("undisturbed"), expiry=EXPIRY)


def late_of(project):
    store = VersionStore(project)
    return store.restore(store.current(0)).training_state.get(LATE)


@pytest.mark.parametrize("expiry", [None, EXPIRY])
def test_versions_at_one_position_are_the_same_whatever_the_cadence_of_commits(tmp_path, expiry):
    digests = {}
    for every in (1, 3, 7):
        project, log = world(tmp_path / str(every), expiry=expiry, commit_every_batches=every)
        with closing(log):
            train(project, log)
        for version in VersionStore(project).lineage(0):
            assert digests.setdefault((version.offset, version.row), version.digest) == version.digest
    assert len(digests) > 20


@pytest.mark.parametrize("rounded", [False, True])
def test_training_that_is_restarted_at_every_record_gives_the_same_bytes(tmp_path, rounded):
    straight = digest_after(tmp_path / "straight", expiry=EXPIRY, rounded=rounded)
    project, log = world(tmp_path / "restarted", expiry=EXPIRY, rounded=rounded)
    store, held = VersionStore(project), 0
    for stop_offset in range(1, log.end_offset("samples", 0) + 1):
        trainer = TrainerShard(project, log, store, 0)
        trainer.train(stop_offset, threading.Event())
        held += trainer.tables.late is not None
        trainer.close()
    assert current_digest(store) == straight
    assert held > 5, "versions hold gradients that are still to be learned"


def train_and_crash(root, point):
    arm_crash_point(point)
    project = make_project(root, document(expiry=EXPIRY))
    train(project, open_log(project))


@pytest.mark.parametrize("point", ["before_commit:2", "after_commit:2", "after_delta:2"])
def test_a_kill_changes_nothing(tmp_path, undisturbed, point):
    project, log = world(tmp_path, expiry=EXPIRY)
    assert exit_code_of(train_and_crash, project.root, f"trainer.{point}") == -signal.SIGKILL
    assert train(project, log) == undisturbed


def test_every_way_to_run_learns_the_same(tmp_path, undisturbed):
    def in_rounds(project, log):
        run_train(project, log, until_end=True)
        return current_digest(VersionStore(project))

    def in_turns(project, log):
        with closing(ShardSession(project, log, VersionStore(project), 0)) as session:
            for _ in range(50):
                learn_for(session, SystemClock(), 0.2)
                if session.count("samples") == ROWS:
                    break
        return current_digest(VersionStore(project))

    for learn in (in_rounds, in_turns, train_with_restarts):
        assert digest_after(tmp_path / learn.__name__, learn, expiry=EXPIRY) == undisturbed


def test_rows_in_memory_or_on_disk_and_windows_learn_the_same_after_restarts(tmp_path):
    for name, settings in (("memory", {"memory_bytes": 30_000}), ("window", {"shuffle_window": 256})):
        straight = digest_after(tmp_path / f"{name} straight", **settings)
        assert digest_after(tmp_path / f"{name} restarted", train_with_restarts, **settings) == straight
    assert digest_after(tmp_path / "memory restarted again", memory_bytes=30_000) == digest_after(tmp_path / "plain")


def test_a_rollback_continues_with_the_gradient_of_its_version(tmp_path):
    project, log = world(tmp_path, commit_every_batches=1)
    store = VersionStore(project)
    end = train(project, log)
    target = list(store.lineage(0))[5]
    nothing_ms = (START_MS + ROWS * 2_000, START_MS + ROWS * 3_000)
    roll_back(project, log, plan_rollback(project, log, to=target.id, quarantine_ms=nothing_ms))
    assert late_of(project) == store.restore(target.id).training_state[LATE]
    assert train(project, log) == end


def test_after_one_batch_the_network_has_learned_it_and_rows_have_not(tmp_path):
    versions = {}
    for depth in (1, 2):
        project, log = world(tmp_path / str(depth), depth=depth)
        with closing(TrainerShard(project, log, VersionStore(project), 0)) as trainer:
            trainer.train(1, threading.Event())
            assert trainer.batches == 1
        store = VersionStore(project)
        versions[depth] = store.restore(store.current(0))
    assert versions[1].dense == versions[2].dense
    dtype = row_dtype(4, 1)
    learned, first = (versions[depth].fields["user"].rows.view(dtype)["weights"] for depth in (1, 2))
    assert (learned != first).all(axis=-1).all()
    assert np.abs(first).max() <= 0.01


def test_a_changed_depth_is_a_migration_and_what_was_late_is_dropped(tmp_path):
    project, log = world(tmp_path)
    train(project, log)
    assert late_of(project) is not None
    other = make_project(tmp_path, document(depth=1))
    with pytest.raises(MigrationError, match="pipeline depth"):
        train(other, log)
    train(other, log, migrate=True)
    assert late_of(other) is None


def test_depth_two_is_part_of_the_identity_and_one_is_not(tmp_path):
    pieces = []
    for depth in (1, 2):
        project = make_project(tmp_path / str(depth), document(depth=depth))
        plan = FeaturePlan(project.config, project.root)
        pieces.append(identity_of(project.config, plan, DenseModel(project.config, project.root)))
    assert {n: t for n, t in pieces[1].items() if pieces[0].get(n) != t} == {"pipeline depth": "2"}


def test_a_depth_of_three_is_refused():
    with pytest.raises(ConfigError, match=r"train\.pipeline_depth"):
        parse_config(document(depth=3))


def test_a_late_gradient_has_a_form_in_bytes(tmp_path):
    project, log = world(tmp_path)
    train(project, log)
    packed = late_of(project)
    late = LateGradient.of_bytes(packed)
    assert late.to_bytes() == packed
    assert late.gradient.shape[1] == 4 + 4 + 2
    assert [len(each.offsets) - 1 for each in late.fields] == [len(late.gradient)] * 3
