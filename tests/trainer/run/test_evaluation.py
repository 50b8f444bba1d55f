"""The newest samples under CURRENT: the same loss as progressive validation, and what cannot be evaluated."""

import copy

import pytest

from pipeline.errors import InputError, MigrationError
from pipeline.importance.fields.inputs import InputColumns
from pipeline.importance.fields.report import Method, report_fields
from pipeline.logs.open import open_log
from pipeline.trainer.run.evaluation import evaluate_shards
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import START_MS, WRITTEN, append_samples, make_project, make_samples, train

SHARED = copy.deepcopy(WRITTEN)
SHARED["tables"] = [{"name": "thing", "dim": 4}]
SHARED["fields"] = [
    {"name": "user", "columns": ["user"], "dim": 4},
    {"name": "item", "columns": ["item"], "table": "thing"},
    {"name": "again", "columns": ["item"], "table": "thing"},
    {"name": "tags", "columns": ["tags"], "dim": 2, "pooling": "mean"},
]
LEARNED, NEW = 960, 64


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A project with a version and 64 samples that it has not learned from."""
    project = make_project(tmp_path_factory.mktemp("shop"), SHARED)
    log = open_log(project)
    append_samples(log, project, make_samples(1, LEARNED))
    train(project, log)
    append_samples(log, project, make_samples(1, NEW, first=LEARNED))
    store = VersionStore(project)
    return project, log, store.current(0)


def test_loss_is_that_of_progressive_validation_when_the_samples_are_learned(world, tmp_path):
    project, log, current = world
    [scored] = evaluate_shards(project, log, [current], NEW)
    before = VersionStore(project).outline(current).validation["label"]["total"]
    other = make_project(tmp_path, SHARED)
    other_log = open_log(other)
    for rows, first in ((LEARNED, 0), (NEW, LEARNED)):
        append_samples(other_log, other, make_samples(1, rows, first=first))
        train(other, other_log)
    after = VersionStore(other).outline(VersionStore(other).current(0)).validation["label"]["total"]
    learned = (after["log_loss"] * after["samples"] - before["log_loss"] * before["samples"]) / NEW
    assert scored.losses(scored.inputs).mean() == pytest.approx(learned, rel=1e-5)
    assert scored.learned == 0


def test_newest_samples_are_counted_from_the_end_and_some_of_them_may_be_learned(world):
    project, log, current = world
    [scored] = evaluate_shards(project, log, [current], 100)
    assert len(scored.inputs) == 100
    assert scored.learned == 100 - NEW
    [everything] = evaluate_shards(project, log, [current], 10_000)
    assert len(everything.inputs) == LEARNED + NEW


def test_the_report_covers_fields_and_shared_tables_with_what_they_take_up(world):
    project, log, current = world
    columns = InputColumns.of(project.config)
    method, calls = Method(samples=500, seed=1, repeats=2, orders=1), []
    report = report_fields(columns, evaluate_shards(project, log, [current], 500), method, lambda: calls.append(1))
    assert len(calls) == method.evaluations(columns)
    found = {each.name: each for each in report.inputs}
    assert [found[name].table for name in ("user", "item", "again", "tags")] == ["user", "thing", "thing", "tags"]
    assert found["user"].permutation.mean > found["tags"].permutation.mean
    assert all(each.live is not None for each in report.inputs)
    [shared] = report.tables
    assert (shared.name, shared.fields) == ("thing", ("item", "again"))
    assert sum(each.shapley.mean for each in report.inputs) > 0
    # Both fields read the same keys: leaving one out frees no row.
    assert (found["item"].footprint.rows, found["item"].footprint.estimated) == (0, True)
    assert found["user"].footprint.rows == 40
    assert sum(each.footprint.lookups for each in report.inputs) == pytest.approx(1)


def test_samples_in_quarantine_are_left_out(world, tmp_path):
    project = make_project(tmp_path, SHARED)
    log = open_log(project)
    append_samples(log, project, make_samples(1, 128))
    train(project, log)
    store = VersionStore(project)
    bad = START_MS + 100_000
    store.ledger.quarantines.add(Quarantine(0, "bots", times_ms=(bad, bad + 20_000)))
    [scored] = evaluate_shards(project, log, [store.current(0)], 1_000)
    assert len(scored.inputs) == 108


def test_a_log_without_samples_is_refused(world, tmp_path):
    project = make_project(tmp_path, SHARED)
    log = open_log(project)
    append_samples(log, project, make_samples(1, 64))
    train(project, log)
    store = VersionStore(project)
    log.trim("samples", 0, log.end_offset("samples", 0))
    with pytest.raises(InputError, match="topic samples holds 0 samples of shard 0 not in quarantine, wanted at least"):
        list(evaluate_shards(project, log, [store.current(0)], 100))


def test_a_configuration_that_has_changed_since_the_version_is_refused(world):
    project, log, current = world
    changed = copy.deepcopy(SHARED)
    changed["fields"][0]["dim"] = 8
    other = make_project(project.root, changed)
    with pytest.raises(MigrationError, match="was trained under another configuration or model: "):
        list(evaluate_shards(other, log, [current], 100))
