"""Requests find items by their attributes and without those they exclude, also after changes of items."""

import json
from functools import partial

import pytest

from pipeline.errors import ConfigError, InputError
from pipeline.process.clock import SystemClock
from pipeline.serving.http import ReplicaServer
from pipeline.serving.items.attributes import Attributes
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.replica import Replica
from tests.support.world.front_thread import FrontThread
from tests.support.world.served_model import request
from tests.support.world.two_towers import ITEMS, USERS, TwoTowers

ATTRIBUTES = {"cheap": "price < 2", "dear": "price >= 3.5", "chosen": "item in (101, 103, 149)"}
TRUE = {"cheap": lambda item: item["price"] < 2, "dear": lambda item: item["price"] >= 3.5,
        "chosen": lambda item: item["item"] in (101, 103, 149)}  # fmt: skip
RECALL = {"items": "items.jsonl", "topic": "items", "attributes": ATTRIBUTES}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = TwoTowers(tmp_path_factory.mktemp("towers"), recall=RECALL)
    world.commit()
    yield world
    world.trainer.close()


@pytest.fixture(scope="module")
def replica(world):
    replica = Replica.for_predictions(world.project, world.trainer.log)
    replica.catch_up()
    return replica


@pytest.fixture(scope="module")
def view(world, replica):
    view = ItemView(world.project, replica, world.trainer.log)
    view.refresh()
    return view


@pytest.mark.parametrize(
    ("wanted", "excluded"),
    [
        ({}, []),
        ({"all": ["cheap"]}, []),
        ({"any": ["cheap", "dear"]}, [149, 7_000]),
        ({"none": ["cheap", "chosen"]}, [130, 131]),
        ({"all": ["dear"], "any": ["chosen"], "none": ["cheap"]}, []),
        ({"all": ["cheap", "dear"]}, []),
        (None, [item["item"] for item in ITEMS[5:]]),
    ],
)
def test_the_best_of_the_items_that_are_allowed_are_found(view, wanted, excluded):
    everything, k = view.recall(USERS, len(ITEMS)), 10
    allowed = view.attributes.allowed(wanted, excluded)
    found = view.recall(USERS, k, allowed)
    sets = {"all": [], "any": [], "none": [], **(wanted or {})}
    fits = {
        item["item"]
        for item in ITEMS
        if all(TRUE[name](item) for name in sets["all"])
        and (not sets["any"] or any(TRUE[name](item) for name in sets["any"]))
        and not any(TRUE[name](item) for name in sets["none"])
        and item["item"] not in excluded
    }
    for names, ordered in zip(found.items, everything.items, strict=True):
        assert names == [name for name in ordered if name in fits][:k]


def test_a_changed_item_has_the_attributes_of_its_new_columns(world, replica):
    view = ItemView(world.project, replica, world.trainer.log)
    view.refresh()
    dear, cheap = (view.attributes.allowed({"all": [name]}, None) for name in ("dear", "cheap"))
    assert 100 in view.recall(USERS[:1], 50, cheap).items[0]
    world.trainer.log.append(
        "items", 0, [json.dumps(item).encode() for item in ({"item": 100, "price": 9.5}, {"item": 7})]
    )
    view.admit()
    for _ in range(2):
        assert 100 in view.recall(USERS[:1], 50, dear).items[0]
        assert {100, 7}.isdisjoint(view.recall(USERS[:1], 50, cheap).items[0])
        world.commit()
        replica.catch_up()
        assert view.refresh()


def test_requests_have_filters_and_exclusions(world, replica, view):
    clock = SystemClock()
    with ReplicaServer(replica, world.project.config, clock, partial(FrontThread, clock), items=view) as server:
        body = {"instances": USERS, "k": 5, "filter": {"all": ["cheap"]}, "exclude": [103, "103"]}
        status, content = request(server, "POST", "/v1/models/model:recall", body)
        wrong = request(server, "POST", "/v1/models/model:recall", body | {"filter": {"all": ["cheep"]}})
    found = view.recall(USERS, 5, view.attributes.allowed({"all": ["cheap"]}, [103]))
    assert status == 200
    assert [row["items"] for row in json.loads(content)["recalled"]] == found.items
    assert wrong[0] == 400
    assert "filter: attribute 'cheep' does not exist. known: cheap, dear, chosen" in wrong[1].decode()


@pytest.mark.parametrize(
    ("filter", "exclude", "problem"),
    [
        ([], None, r"filter: got \[\], wanted an object of lists: all, any, none"),
        ({"every": []}, None, "wanted an object of lists"),
        ({"all": "cheap"}, None, r"filter\.all: got str, wanted a list"),
        ({"all": [3]}, None, "filter: attribute 3 does not exist"),
        (None, 7, "exclude: got int, wanted a list"),
        (None, [7, True], "exclude: got True, wanted names of items"),
        (None, [1.5], r"exclude: got 1\.5, wanted names of items"),
    ],
)
def test_wrong_filters_are_refused(filter, exclude, problem):
    with pytest.raises(InputError, match=problem):
        Attributes(ATTRIBUTES, {"item": "int", "price": "float"}).allowed(filter, exclude)


def test_without_attributes_a_filter_names_where_to_declare_them():
    with pytest.raises(InputError, match=r"known: none\. hint: declare \[recall\.attributes\]"):
        Attributes({}, {"item": "int"}).allowed({"all": ["cheap"]}, None)


@pytest.mark.parametrize("condition", ["price <", "prize < 5", "price = 'dear'"])
def test_a_wrong_condition_is_refused(condition):
    with pytest.raises(ConfigError, match=r"recall\.attributes: "):
        Attributes({"cheap": condition}, {"item": "int", "price": "float"})
