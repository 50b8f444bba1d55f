"""The trainer: a function of the samples log, also across kills; one writer per shard; bad data halts it."""

import copy
import signal
import threading

import numpy as np
import pytest

from pipeline.errors import FencedError, HaltedError, LogReplacedError, MigrationError
from pipeline.logs.open import open_log
from pipeline.process.crash_point import arm_crash_point
from pipeline.serving.replica import Replica
from pipeline.trainer.commit.boundary_snapshot import BoundarySnapshot, training_digest
from pipeline.trainer.commit.restore import restore_progress, restore_tables
from pipeline.trainer.run.in_process import run_train
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.deltas.delta_version import readable_version
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.store.version_store import VersionStore
from tests.support.command.forked import exit_code_of
from tests.support.shop.shop import (
    MODEL,
    START_MS,
    WRITTEN,
    append_samples,
    current_digest,
    make_project,
    make_samples,
    train,
)

ROWS = 1500


def changed(**sections):
    document = copy.deepcopy(WRITTEN)
    for name, value in sections.items():
        document[name] = {**document[name], **value} if isinstance(value, dict) else value
    return document


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The digest after one uninterrupted training over the samples."""
    project = make_project(tmp_path_factory.mktemp("undisturbed"))
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    return train(project, log)


@pytest.fixture
def shop(tmp_path):
    project = make_project(tmp_path)
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    return project, log


def test_the_same_log_gives_the_same_bytes_whatever_the_cadence_of_commits(tmp_path, undisturbed):
    for every in (1, 7, None):
        project = make_project(tmp_path / str(every), changed(train={"commit_every_batches": every}))
        log = open_log(project)
        append_samples(log, project, make_samples(1, ROWS))
        assert train(project, log) == undisturbed


def digest_of_file(project, commit):
    """A version's digest from its file alone, every row hashed anew."""
    tables = restore_tables(commit, project.config, set(commit.fields))
    progress = restore_progress(commit, project.config)
    counts = {name: table.counts() for name, table in tables.by_name.items()}
    admission = {name: table.admitter.digest() for name, table in tables.by_name.items()}
    snapshot = BoundarySnapshot(
        progress, commit.dense, b"", commit.training_state, {}, {}, {}, counts, admission, [], False
    )
    return training_digest(snapshot, {name: each.table.scan_digest() for name, each in tables.by_name.items()})


def test_a_version_made_during_training_is_the_state_of_training_at_its_position(tmp_path):
    """With any commit cadence, and with expiry: the same position, the same version, to the last row."""
    expiring = {**WRITTEN["fields"][0], "expiry": {"ttl_s": 120, "sweep_every_s": 60}}
    digests = {}
    for every in (1, 3):
        sections = changed(train={"commit_every_batches": every})
        project = make_project(tmp_path / str(every), {**sections, "fields": [expiring, *WRITTEN["fields"][1:]]})
        log = open_log(project)
        append_samples(log, project, make_samples(1, ROWS))
        train(project, log)
        store = VersionStore(project)
        for version in store.lineage(0):
            assert digests.setdefault((version.offset, version.row), version.digest) == version.digest
            assert digest_of_file(project, store.restore(version.id)) == version.digest
    assert len(digests) > 20


def test_training_that_is_restarted_again_and_again_gives_the_same_bytes(shop, undisturbed):
    project, log = shop
    store = VersionStore(project)
    end = log.end_offset("samples", 0)
    for stop_offset in (*range(1, end, 3), end):
        trainer = TrainerShard(project, log, store, 0)
        trainer.train(stop_offset, threading.Event())
        trainer.close()
    assert current_digest(store) == undisturbed


def test_the_beam_job_trains_like_the_shard_itself(shop, undisturbed):
    project, log = shop
    report = run_train(project, log, until_end=True)
    assert report.samples == ROWS
    assert current_digest(VersionStore(project)) == undisturbed


def test_rows_digest_of_a_version_equals_a_full_scan_of_its_rows(shop):
    project, log = shop
    train(project, log)
    trainer = TrainerShard(project, log, VersionStore(project), 0)
    for each in trainer.tables.by_name.values():
        assert each.table.digest() == each.table.scan_digest() != 0
    trainer.close()


def train_and_crash(root, point):
    arm_crash_point(point)
    project = make_project(root)
    train(project, open_log(project))


@pytest.mark.parametrize("point", ["before_commit:2", "after_commit:2", "after_delta:2", "after_publish:2"])
def test_a_kill_at_any_point_of_a_commit_changes_neither_model_nor_serving(shop, undisturbed, point):
    project, log = shop
    assert exit_code_of(train_and_crash, project.root, f"trainer.{point}") == -signal.SIGKILL
    assert train(project, log) == undisturbed
    replica = Replica(project, log)
    replica.catch_up()
    store = VersionStore(project)
    assert replica.digest() == store.ledger.version(store.current(0)).served_digest
    sequences = [readable_version(record, 0).sequence for record in log.read("deltas", 0, 0)]
    assert sequences == sorted(set(sequences)) == list(range(1, store.current(0).sequence + 1))


def test_a_second_trainer_on_a_shard_fences_the_first(shop):
    project, log = shop
    store = VersionStore(project)
    first = TrainerShard(project, log, store, 0)
    second = TrainerShard(project, log, store, 0)
    with pytest.raises(FencedError, match="epoch 1"):
        first.train(log.end_offset("samples", 0), threading.Event())
    second.train(log.end_offset("samples", 0), threading.Event())
    first.close()
    second.close()


def test_a_loss_that_is_not_finite_halts_until_quarantine_and_resume(tmp_path):
    project = make_project(tmp_path)
    log = open_log(project)
    append_samples(log, project, make_samples(1, 640))
    append_samples(log, project, make_samples(1, 64, first=640, bad=slice(10, 20)))
    append_samples(log, project, make_samples(1, 640, first=704))
    with pytest.raises(HaltedError, match=r"loss .*, at offset 7 row 0"):
        train(project, log)
    with pytest.raises(HaltedError, match="springtide resume"):
        train(project, log)
    store = VersionStore(project)
    halt = store.ledger.halts.get(0)
    assert (project.root / halt.batch_file).exists()
    span = (START_MS + 640_000, START_MS + 704_000)
    store.ledger.quarantines.add(Quarantine(0, "bad weights", times_ms=span))
    store.ledger.halts.clear(0)
    train(project, log)
    clean = make_project(tmp_path / "clean")
    clean_log = open_log(clean)
    append_samples(clean_log, clean, make_samples(1, 640))
    append_samples(clean_log, clean, make_samples(1, 640, first=704))
    train(clean, clean_log)
    assert rows_of(project) == rows_of(clean)


def test_a_sample_with_a_weight_that_is_not_a_number_halts_and_is_named(tmp_path):
    project = make_project(tmp_path)
    log = open_log(project)
    append_samples(log, project, make_samples(1, 64, bad=slice(10, 20), weight=np.nan))
    with pytest.raises(HaltedError, match="sample 10 of a batch has weight nan"):
        train(project, log)
    assert VersionStore(project).ledger.halts.get(0)


def rows_of(project):
    store = VersionStore(project)
    fields = store.restore(store.current(0)).fields
    return {name: (change.keys.tolist(), change.rows.tobytes()) for name, change in fields.items()}


def test_a_changed_configuration_is_refused_by_name_and_migrated_on_request(shop):
    project, log = shop
    train(project, log)
    before = rows_of(project)
    fields = [*WRITTEN["fields"][:2], {"name": "pair", "columns": ["user", "item"], "transform": "cross", "dim": 2}]
    other = make_project(project.root, changed(fields=fields))
    with pytest.raises(MigrationError, match="field pair is new; field tags was removed"):
        train(other, log)
    train(other, log, migrate=True)
    after = rows_of(other)
    assert after["user"] == before["user"]
    assert after["pair"] == ([], b"")
    assert "tags" not in after
    append_samples(log, other, make_samples(1, 640, first=ROWS))
    train(other, log)
    replica = Replica(other, log)
    replica.catch_up()
    store = VersionStore(other)
    assert replica.digest() == store.ledger.version(store.current(0)).served_digest


POOLED = """
import keras
from keras import layers

def build(inputs):
    x = layers.Concatenate()([layers.Flatten()(x) for name, x in inputs.items() if not name.endswith("_mask")])
    return keras.Model(inputs, layers.Dense(1)(x))
"""


@pytest.mark.parametrize("settings", [{"pooling": "max"}, {"pooling": "none", "max_length": 3}])
def test_rows_stay_when_a_field_pools_them_otherwise(shop, settings):
    project, log = shop
    train(project, log)
    before = rows_of(project)
    *others, tags = WRITTEN["fields"]
    assert tags["name"] == "tags"
    other = make_project(project.root, changed(fields=[*others, {**tags, **settings}]), model=POOLED)
    with pytest.raises(MigrationError, match=r"field tags changed.* keep their rows: item, tags, user"):
        train(other, log)
    train(other, log, migrate=True)
    assert rows_of(other) == before


def test_a_changed_model_is_refused(shop):
    project, log = shop
    train(project, log)
    other = make_project(project.root, model=MODEL.replace("Dense(8", "Dense(9"))
    with pytest.raises(MigrationError, match="model changed"):
        train(other, log)


def test_a_samples_topic_that_was_made_again_is_refused(shop):
    project, log = shop
    train(project, log)
    log.delete_topic("samples")
    log.create_topic("samples", 1)
    append_samples(log, project, make_samples(2, 5000))
    with pytest.raises(LogReplacedError, match="topic samples"):
        train(project, log)


def test_keys_are_admitted_at_the_threshold_and_all_of_them_learned(shop):
    project, log = shop
    train(project, log)
    store = VersionStore(project)
    fields = store.restore(store.current(0)).fields
    assert len(fields["user"].keys) == 40
    assert len(fields["item"].keys) == 30


def test_rows_unseen_for_their_time_to_live_are_tombstoned_everywhere(tmp_path):
    document = changed(publish={"loss": 1e-9})
    document["fields"][0]["expiry"] = {"ttl_s": 600.0, "sweep_every_s": 60.0}
    project = make_project(tmp_path, document)
    log = open_log(project)
    append_samples(log, project, make_samples(1, 640))
    train(project, log)
    replica = Replica(project, log)
    replica.catch_up()
    assert replica.export("user").num_rows == 40
    late = make_samples(5, 64, first=3000)
    append_samples(log, project, late)
    train(project, log)
    replica.catch_up()
    # The sweep runs at the boundary after the batch, so the rows of the batch stay.
    assert replica.export("user").num_rows == len(set(late.column("user").to_pylist())) < 40


def test_it_learns(shop):
    project, log = shop
    append_samples(log, project, make_samples(1, 6000, first=ROWS))
    report = run_train(project, log, until_end=True)
    total = report.shards[0]["validation"]["label"]["total"]
    assert total["auc"] > 0.6
    assert np.isclose(total["calibration"], 1, atol=0.1)
