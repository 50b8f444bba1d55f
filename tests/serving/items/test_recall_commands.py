"""The commands `recall` and `export items` show the items as a replica finds them."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.serving.items.item_view import ItemView
from pipeline.serving.replica import Replica
from tests.support.command.command_line import call, springtide
from tests.support.world.two_towers import ITEMS, USERS, TwoTowers, project_folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = TwoTowers(project_folder(tmp_path_factory.mktemp("towers"), '[recall]\nitems = "items.jsonl"\n'))
    world.commit()
    yield world
    world.trainer.close()


@pytest.fixture(scope="module")
def view(world):
    replica = Replica.for_predictions(world.project, world.trainer.log)
    replica.catch_up()
    view = ItemView(world.project, replica, world.trainer.log)
    view.refresh()
    return view


def test_items_of_every_user_are_shown_with_their_scores_and_the_version(world, view):
    shown = springtide(world.project.root, "recall", *map(json.dumps, USERS), "-k", "7")
    wanted = view.recall(USERS, 7)
    assert shown["version"] == wanted.version
    for i, user in enumerate(USERS):
        rows = [row for row in shown["items"] if row["user"] == json.dumps(user)]
        assert [row["rank"] for row in rows] == [*range(1, 8)]
        assert [row["item"] for row in rows] == wanted.items[i]
        assert [row["score"] for row in rows] == pytest.approx(wanted.scores[i])


def test_columns_make_one_user_and_people_see_a_table(world, view):
    shown = call("recall", "user=3", "price=1.5", "-k", "2", "--project", world.project.root)
    assert (shown.code, shown.err) == (0, "")
    best = view.recall([{"user": 3, "price": 1.5}], 2).items[0]
    assert f"version: {view.recall(USERS, 1).version}" in shown.out
    assert "age: " in shown.out
    assert all(str(item) in shown.out for item in best)


def test_excluded_items_are_not_shown(world, view):
    names = view.recall(USERS[:1], 5).items[0]
    left = [json.dumps(names[:2]), "-k", "3", "--filter", '{"all": []}']
    shown = springtide(world.project.root, "recall", json.dumps(USERS[0]), "--exclude", *left)
    assert [row["item"] for row in shown["items"]] == names[2:]
    wrong = call("recall", "user=1", "--filter", "cheap", "--project", world.project.root)
    assert (wrong.code, "filter 'cheap' is not json" in wrong.err) == (3, True)


def test_exported_vectors_are_those_that_are_searched(world, view, tmp_path):
    out = tmp_path / "items.parquet"
    planned = springtide(world.project.root, "export", "items", "--out", out, "--dry-run")
    assert not out.exists()
    written = springtide(world.project.root, "export", "items", "--out", out)
    assert planned == {"would_write": written.pop("written"), **written}
    table = pq.read_table(out)
    assert sorted(table["item"].to_pylist()) == [item["item"] for item in ITEMS]
    assert {*table["version"].to_pylist()} == {"g0/s0-of-1/1"}
    embedded = dict(zip(table["item"].to_pylist(), table["vector"].to_pylist(), strict=True))
    for names, vectors in view.vectors():
        np.testing.assert_array_equal([embedded[name] for name in names], vectors)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["user"], "user 'user' is neither name=value nor a JSON object"),
        (["usr=1"], "column usr does not exist. known: id, user, item, price"),
        (["user=one"], "one"),
        (["user=1", "user=2"], "a column has two values. hint: a JSON object for each user"),
        (["{"], "user '{' is not json"),
        (['{"user": ' + "[" * 100_000], "is not json: maximum recursion depth exceeded"),
        (["user=1", "--filter", "[" * 100_000], "is not json: maximum recursion depth exceeded"),
        (['{"usr": 1}'], "instance 0 has column usr"),
        (["user=1", "-k", "0"], "k: got 0, wanted an integer in 1..1000. hint: recall.max_k"),
        (["user=1", "-k", "1001"], "k: got 1001"),
    ],
)
def test_wrong_users_are_refused(world, words, problem):
    shown = call("recall", *words, "--project", world.project.root)
    assert shown.code == 3
    assert problem in shown.err


def test_without_items_both_commands_say_what_is_missing(tmp_path):
    for words in (["recall", "user=1"], ["export", "items", "--out", tmp_path / "out.parquet"]):
        shown = call(*words, "--project", project_folder(tmp_path, ""))
        assert (shown.code, "model model recalls no items. hint: declare [recall]" in shown.err) == (2, True)
        shown = call(*words, "--project", project_folder(tmp_path, '[recall]\ntopic = "items"\n'))
        assert (shown.code, "model model has no published version. run: springtide run all" in shown.err) == (3, True)


def test_a_wrong_condition_of_an_attribute_is_found_by_the_check(tmp_path):
    attributes = '[recall]\nitems = "items.jsonl"\n[recall.attributes]\ncheap = "prize < 5"\n'
    found = call("config", "check", "--project", project_folder(tmp_path, attributes))
    assert found.code == 2
    assert "recall.attributes: " in found.err
    assert "prize" in found.err
