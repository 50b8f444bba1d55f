"""`springtide importance --fields` on a trained project: what it shows, and that it changes nothing."""

import json
from contextlib import closing

import pytest

from pipeline.configuration.project import Project
from pipeline.versions.store.version_store import VersionStore
from tests.support.command.command_line import call, feed, make_events, make_shop, springtide

FIELDS = {"user", "item", "position", "hour"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    project = make_shop(tmp_path_factory.mktemp("shop") / "project")
    feed(project, make_events(1, 1_500))
    springtide(project, "run", "samples", "--until-end")
    springtide(project, "run", "train", "--until-end")
    return project


@pytest.fixture(scope="module")
def measured(shop):
    return springtide(shop, "importance", "--fields", "--samples", "600")


def test_every_input_is_shown_with_its_intervals_most_important_first(measured):
    assert {each["input"] for each in measured["inputs"]} == FIELDS
    assert measured["samples"] == measured["learned_samples"] == 600
    shown = [each["permutation"] for each in measured["inputs"]]
    assert shown == sorted(shown, reverse=True)
    for each in measured["inputs"]:
        for name in ("permutation", "shapley"):
            low, high = each[f"{name}_interval"]
            assert low <= each[name] <= high
        assert isinstance(each["live"], float)


def test_leaving_a_field_out_frees_its_rows_and_look_ups(measured, shop):
    left_out = {each["field"]: each for each in measured["leaving_out"]}
    assert set(left_out) == FIELDS
    assert sum(each["frees_lookups_share"] for each in left_out.values()) == pytest.approx(1)
    with closing(VersionStore(Project.open(shop))) as store:
        commit = store.restore(store.current(0))
    for name, each in left_out.items():
        change = commit.fields[name]
        assert (each["frees_rows"], each["rows_counted"]) == (len(change.keys), "all")
        assert each["frees_trainer_bytes"] == change.rows.nbytes
        assert each["frees_serving_bytes"] == len(change.served_payload)


def test_the_same_samples_and_seed_give_the_same_numbers(measured, shop):
    assert springtide(shop, "importance", "--fields", "--samples", "600", "--seed", "1") == measured
    other = springtide(shop, "importance", "--fields", "--samples", "600", "--seed", "2")
    assert other["loss"] == measured["loss"]
    assert other["inputs"] != measured["inputs"]


def test_a_field_is_shown_alone_and_a_picture_is_written(shop, tmp_path):
    picture = tmp_path / "fields.png"
    done = call("importance", "user", "--fields", "--samples", "300", "--out", picture, "--project", shop)
    assert done.code == 0, done.err
    assert "permutation interval" in done.out
    assert "item" not in done.out
    assert f"written: {picture}" in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["fields.png"]


def test_nothing_is_disturbed(shop):
    def state():
        with closing(VersionStore(Project.open(shop))) as store:
            return store.ledger.epoch(0), store.current(0), [path.name for path in sorted((shop / "state").rglob("*"))]

    before = state()
    call("importance", "--fields", "--samples", "100", "--project", shop)
    assert state() == before


def test_rows_are_still_listed_without_the_option(shop):
    [first, *_] = json.loads(call("importance", "item", "--top", "3", "--json", "--project", shop).out)["keys"]
    assert first["value"].startswith("i")
