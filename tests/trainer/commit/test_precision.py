"""The search over prices of a byte on models that differ from the usual one."""

import copy

import pytest

from pipeline.cli.terminal.precision_report import draw, result_of_search
from pipeline.errors import InputError
from pipeline.logs.open import open_log
from pipeline.trainer.run.precision import FACTORS, precision_of_tables, price_at, search_prices
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import MODEL, WRITTEN, append_samples, make_project, make_samples, train

ROWS = 640


def learned(root, model=MODEL, **sections):
    project = make_project(root, copy.deepcopy(WRITTEN) | sections, model)
    log = open_log(project)
    append_samples(log, project, make_samples(1, ROWS))
    train(project, log)
    store = VersionStore(project)
    return project, log, store, store.current(0)


def test_a_model_without_a_logistic_label_is_searched_by_its_loss_alone(tmp_path):
    project, log, _, current = learned(tmp_path, labels=[{"name": "label", "loss": "squared"}])
    calls = []
    search = search_prices(project, log, [current], 300, lambda: calls.append(1))
    assert len(calls) == len(FACTORS) == len(search.points)
    assert (search.label, search.samples) == (None, 300)
    for point in search.points:
        assert (point.divergence, point.ks_distance, point.calibration) == (None, None, [])
    assert abs(search.points[0].loss_rise) < 1e-3
    assert "calibration" not in result_of_search(project, search)
    draw(search, tmp_path / "precision.png")
    assert (tmp_path / "precision.png").read_bytes().startswith(b"\x89PNG")


def test_the_scores_of_any_label_are_compared(tmp_path):
    labels = [{"name": "label"}, {"name": "other", "target": "label", "loss": "squared"}]
    project, log, _, current = learned(tmp_path, MODEL.replace("Dense(1)", "Dense(2)"), labels=labels)
    first, named, other = (
        search_prices(project, log, [current], 300, lambda: None, label) for label in (None, "label", "other")
    )
    assert first == named
    assert (first.label, other.label) == ("label", "other")
    assert [point.loss_rise for point in other.points] == [point.loss_rise for point in first.points]
    assert [point.ks_distance for point in other.points] != [point.ks_distance for point in first.points]
    for point in other.points:
        assert (point.divergence, point.calibration) == (None, [])
        assert 0 <= point.ks_distance <= 1
    assert "calibration" not in result_of_search(project, other)
    with pytest.raises(InputError, match=r"label nothing does not exist\. known: label, other\. hint: --label label"):
        search_prices(project, log, [current], 300, lambda: None, "nothing")


def test_rows_that_training_rounds_keep_their_bits_at_every_price(tmp_path):
    document = copy.deepcopy(WRITTEN)
    for field in document["fields"]:
        field["quantise"] = 4
    project, log, store, current = learned(tmp_path, fields=document["fields"])
    search = search_prices(project, log, [current], 300, lambda: None)
    assert all(point.rows[bits] == 0 for point in search.points for bits in (8, 16, 32))
    assert search.points[0].divergence == pytest.approx(0, abs=1e-6)
    tables = precision_of_tables(project, store.restore(current), price_at(project, store.restore(current)))
    assert sum(table.rows[4] for table in tables.values()) > 0


def test_a_version_that_has_learned_nothing_has_no_price(tmp_path):
    project, _, store, current = learned(tmp_path)
    commit = store.restore(current)
    commit.price["for_steps"] = 0.0
    with pytest.raises(InputError, match=r"has the price 0 and the loss .*, wanted both above 0\. hint: learn more"):
        price_at(project, commit)
