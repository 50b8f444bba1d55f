"""Quarantines of chosen samples: a replay learns what it would have learned without them, and the plan counts them."""

import threading

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.features.plan import FeaturePlan
from pipeline.logs.open import open_log
from pipeline.quarantine.effect import effect_of
from pipeline.quarantine.sample_mask import Choice, SampleMask
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.trainer.commit.restore import restore_tables
from pipeline.trainer.run.evaluation import evaluate_shards
from pipeline.trainer.run.in_process import TrainJob
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.ledger.quarantine import ANY_TIME_MS, Quarantine
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import START_MS, append_samples, make_project, make_samples, train

ROWS = 1500
BAD_MS = START_MS + 700 * 1000
WHERE = "user in ('u3', 'u7') and not item like 'i1%'"
BOTS = [f"u{i}" for i in range(10, 16)]


def chosen_rows(samples):
    """[n] the rows of `WHERE` from `BAD_MS` on."""
    user, item = (np.array(samples.column(name).to_pylist()) for name in ("user", "item"))
    at_ms = np.array(samples.column("impression_at").to_pylist())
    at_ms = np.maximum(at_ms, np.array(samples.column("click_at").fill_null(0).to_pylist()))
    return np.isin(user, ["u3", "u7"]) & ~np.char.startswith(item, "i1") & (at_ms >= BAD_MS)


def learned(project):
    """What training depends on, apart from where it stands in the log: rows with importance, dense weights, state."""
    store = VersionStore(project)
    commit = store.restore(store.current(0))
    rows = {name: (change.keys.tobytes(), change.rows.tobytes()) for name, change in commit.fields.items()}
    return rows, commit.dense, commit.training_state, commit.samples_seen, commit.last_at_ms


@pytest.fixture
def shop(tmp_path):
    """A project that has learned everything."""
    project = make_project(tmp_path / "shop")
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    train(project, log)
    return project, log


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """What is learned from a log without the chosen samples."""
    project = make_project(tmp_path_factory.mktemp("without"))
    log = open_log(project)
    samples = make_samples(1, ROWS)
    append_samples(log, project, samples.filter(pa.array(~chosen_rows(samples))))
    train(project, log)
    return learned(project)


def rolled_back(project, log):
    plan = plan_rollback(project, log, before_ms=BAD_MS, choice=Choice.read(project.config, WHERE, None))
    return plan, roll_back(project, log, plan)


def test_a_replay_after_a_rollback_equals_training_on_a_log_without_the_samples(shop, without):
    project, log = shop
    before = learned(project)
    plan, _ = rolled_back(project, log)
    target = plan.shards[0].target
    assert 0 < VersionStore(project).ledger.version(target).samples_seen < 700
    train(project, log)
    assert learned(project) == without != before


def test_a_replay_that_is_restarted_at_any_record_learns_the_same(shop, without):
    project, log = shop
    rolled_back(project, log)
    store, end = VersionStore(project), log.end_offset("samples", 0)
    for stop_offset in (8, 11, end):
        trainer = TrainerShard(project, log, store, 0)
        trainer.train(stop_offset, threading.Event())
        trainer.close()
    assert learned(project) == without


def test_a_running_job_continues_from_the_target_without_the_samples(shop, without):
    project, log = shop
    job = TrainJob(project, log)
    job.round()
    rolled_back(project, log)
    job.round()
    job.close()
    assert learned(project) == without
    store = VersionStore(project)
    assert store.outline(store.current(0)).quarantines_seen == [1]


def test_the_plan_counts_the_samples_that_are_read_again_and_what_they_touch(shop):
    project, log = shop
    plan, _ = rolled_back(project, log)
    samples = make_samples(1, ROWS)
    chosen = chosen_rows(samples)
    assert (plan.effect.samples, plan.effect.learned) == (int(chosen.sum()), int(chosen.sum()))
    found = {each.field: each for each in plan.effect.fields}
    assert list(found) == ["user", "item", "tags"]
    assert found["user"].keys == 2
    assert found["item"].keys == len(set(samples.filter(pa.array(chosen)).column("item").to_pylist()))
    described = plan.describe()
    assert described["where"] == WHERE
    assert described["quarantine_ms"][0] == BAD_MS
    assert described["skipped"]["samples"] == int(chosen.sum())


def test_the_importance_that_is_touched_is_that_of_the_rows_of_the_keys(shop):
    project, log = shop
    store = VersionStore(project)
    commit = store.restore(store.current(0))
    mask = SampleMask.planned(Quarantine(0, "bots", ANY_TIME_MS), Choice.read(project.config, "user = 'u3'", None))
    [effect, *_] = effect_of(project, log, store, mask).fields
    tables = restore_tables(commit, project.config, set(commit.fields))
    key = FeaturePlan(project.config, project.root).key_of("user", {"user": "u3"})
    every = np.sort(commit.fields["user"].keys)
    statistics = tables.by_name["user"].table.statistics(every)
    age_s = commit.last_at_ms // 1000 - statistics["last_seen_s"].astype(np.int64)
    importance = statistics["importance"] * 0.5 ** (age_s / project.config.train.half_life_s)
    assert (effect.field, effect.table, effect.keys, effect.rows) == ("user", "user", 1, 1)
    assert effect.importance == pytest.approx(importance[every == key].sum())
    assert effect.importance_share == pytest.approx(importance[every == key].sum() / importance.sum())


def test_samples_that_are_not_learned_yet_are_counted_apart(shop):
    project, log = shop
    append_samples(log, project, make_samples(1, 300, first=ROWS))
    mask = SampleMask.planned(Quarantine(0, "bots", ANY_TIME_MS), Choice.read(project.config, "user = 'u3'", None))
    effect = effect_of(project, log, VersionStore(project), mask)
    old, new = (np.count_nonzero(np.array(make_samples(1, n, first).column("user")) == "u3") for n, first in
                ((ROWS, 0), (300, ROWS)))  # fmt: skip
    assert (effect.samples, effect.learned) == (old + new, old)


def test_keys_of_a_file_that_is_gone_are_skipped_from_then_on(shop, tmp_path):
    project, log = shop
    path = tmp_path / "bots.txt"
    path.write_text("\n".join(BOTS))
    choice = Choice.read(project.config, None, ("user", path))
    choice.store(project)
    path.unlink()
    VersionStore(project).ledger.quarantines.add(Quarantine(0, "bots", ANY_TIME_MS, selection=choice.selection))
    later = make_samples(1, 300, first=ROWS)
    append_samples(log, project, later)
    job = TrainJob(project, log)
    assert job.round() == np.count_nonzero(~np.isin(np.array(later.column("user")), BOTS)) < 300
    job.close()


def test_newest_samples_are_scored_without_the_chosen_ones(shop):
    project, log = shop
    store = VersionStore(project)
    choice = Choice.read(project.config, "user != 'u3'", None)
    store.ledger.quarantines.add(Quarantine(0, "bots", ANY_TIME_MS, selection=choice.selection))
    [scored] = evaluate_shards(project, log, [store.current(0)], ROWS)
    users = np.array(make_samples(1, ROWS).column("user"))
    assert len(scored.inputs) == np.count_nonzero(users == "u3")


def test_a_trainer_does_not_open_with_a_quarantine_that_names_an_unknown_column(shop):
    project, log = shop
    store = VersionStore(project)
    columns = project.config.events.impressions.columns | {"campaign": "string"}
    wider = project.config.model_copy(
        update={
            "events": project.config.events.model_copy(
                update={"impressions": project.config.events.impressions.model_copy(update={"columns": columns})}
            )
        }
    )
    choice = Choice.read(wider, "campaign = 'x'", None)
    store.ledger.quarantines.add(Quarantine(0, "bots", ANY_TIME_MS, selection=choice.selection))
    with pytest.raises(InputError, match="quarantine 1 cannot be applied: condition, character 1: got campaign"):
        TrainerShard(project, log, store, 0)
