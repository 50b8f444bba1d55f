"""Importance of fields in the trainer: in the version, the same after restarts, and without effect on the model."""

import threading
from dataclasses import replace

import pytest

from pipeline.importance.fields.inputs import InputColumns
from pipeline.importance.fields.live import LiveImportance
from pipeline.logs.open import open_log
from pipeline.trainer.commit.boundary_snapshot import FIELD_IMPORTANCE
from pipeline.trainer.commit.restore import restore_progress
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import append_samples, make_project, make_samples, train

ROWS = 6_000


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> bytes:
    """Of a trainer that nothing disturbs."""
    project = make_project(tmp_path_factory.mktemp("shop"))
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    train(project, log)
    return state_of(project)


def state_of(project) -> bytes:
    store = VersionStore(project)
    return store.restore(store.current(0)).training_state[FIELD_IMPORTANCE]


def test_a_trainer_that_is_restarted_at_every_few_records_has_the_same_importance(tmp_path, state):
    project = make_project(tmp_path)
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    end = log.end_offset("samples", 0)
    for stop in (4, 41, end):
        trainer = TrainerShard(project, log, VersionStore(project), 0)
        trainer.train(stop, threading.Event())
        trainer.close()
    assert state_of(project) == state


def test_fields_that_decide_the_clicks_are_more_important_than_the_one_that_does_not(tmp_path, state):
    project = make_project(tmp_path)
    live = LiveImportance(InputColumns.of(project.config), project.config.train.half_life_s)
    live.load(state)
    values = live.of_inputs()
    assert set(values) == {"user", "item", "tags"}
    assert live.of_tables() == values
    assert values["user"].low > values["tags"].mean


def test_a_version_from_before_importance_was_counted_starts_empty(tmp_path):
    project = make_project(tmp_path)
    log = open_log(project)
    append_samples(log, project, make_samples(1, 300))
    train(project, log)
    store = VersionStore(project)
    commit = store.restore(store.current(0))
    without = {name: each for name, each in commit.training_state.items() if name != FIELD_IMPORTANCE}
    progress = restore_progress(replace(commit, training_state=without), project.config)
    assert progress.importance.of_inputs() == {}
    assert set(restore_progress(commit, project.config).importance.of_inputs()) == {"user", "item", "tags"}
