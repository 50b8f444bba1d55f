"""An item that a version cannot embed or score is left out alone, in a running replica as after a restart."""

import json

import pytest

from pipeline.serving.items.item_view import ItemView
from pipeline.serving.replica import Replica
from pipeline.telemetry import metrics
from tests.support.world.two_towers import ITEMS, TOWERS, USERS, TwoTowers

MODEL = """
import keras
import tensorflow as tf
from keras import layers, ops

class Known(layers.Layer):
    def call(self, price):
        tf.debugging.assert_none_equal(price, 13.0)
        return price

def build(inputs):
    price = Known()(inputs["price"])
    user = layers.Dense(4)(inputs["user"])
    seen = layers.Concatenate()([inputs["item"], ops.log(1 + ops.abs(price)), ops.tanh(ops.sqrt(100 + price))])
    item = layers.Dense(4)(seen)
    root = ops.sqrt(50 + price)
    pair = layers.Concatenate()([layers.Dense(8)(inputs["item"]), layers.Dense(8)(inputs["user"]), price, root])
    for _ in range(2):
        pair = layers.Dense(8)(pair)
    return keras.Model(inputs, {"user": user, "item": item, "score": layers.Dense(1)(pair)})
"""
SCORE = {"name": "score", "target": "label", "loss": "squared"}
RECALLS = {
    "scan": {"topic": "items"},
    "scored": {"topic": "items", "scorer": "score", "scored": 60, "max_k": 60},
    "tree": {"topic": "items", "scorer": "score", "max_k": 60, "tree": {"beam": 60, "fan_out": 4, "layers": 1}},
}
FAILING = {"item": 7, "price": 13.0}
NO_VECTOR = {"item": 7, "price": -200.0}
NO_PART = {"item": 7, "price": -60.0}
NO_SCORE = {"item": 7, "price": 3e38}


class World(TwoTowers):
    def __init__(self, root, recall):
        super().__init__(root, model=MODEL, labels=[TOWERS, SCORE], recall=recall)
        self.commit()
        self.trainer.log.create_topic("items", 1)
        self.append(*ITEMS)
        self.replica = Replica.for_predictions(self.project, self.trainer.log)
        self.replica.catch_up()
        self.view = self.started()

    def started(self):
        """As a replica has the items after its start."""
        view = ItemView(self.project, self.replica, self.trainer.log)
        assert view.refresh()
        return view

    def append(self, *items):
        self.trainer.log.append("items", 0, [json.dumps(item).encode() for item in items])

    def admit(self, *items):
        """Append items; returns how many changes the running replica refuses."""
        self.append(*items)
        before = metrics.RECALL_REFUSED._value.get()
        self.view.admit()
        return metrics.RECALL_REFUSED._value.get() - before


@pytest.fixture
def world_of(tmp_path):
    worlds = []

    def of(kind):
        worlds.append(World(tmp_path, RECALLS[kind]))
        return worlds[-1]

    yield of
    for world in worlds:
        world.trainer.close()


def names(view):
    return {*view.recall(USERS[:1], 60).items[0]}


def withheld(view):
    (found,) = [each.value for each in view.readings() if each.metric is metrics.RECALL_WITHHELD]
    return found


EVERYTHING = {item["item"] for item in ITEMS}


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("scan", FAILING),
        ("scan", NO_VECTOR),
        ("scored", FAILING),
        ("scored", NO_PART),
        ("tree", FAILING),
        ("tree", NO_PART),
    ],
)
def test_an_item_that_cannot_be_embedded_is_left_out_and_the_others_are_found(world_of, kind, wrong):
    world = world_of(kind)
    assert world.admit({"item": 8}, wrong, {"item": 9}, {"item": 100, "$removed": True}) == 1
    for view in (world.view, world.started()):
        assert names(view) == EVERYTHING - {100} | {8, 9}
        assert withheld(view) == 1
    assert world.admit({"item": 7, "price": 1.0}) == 0
    assert (names(world.view), withheld(world.view)) == (EVERYTHING - {100} | {7, 8, 9}, 0)
    world.admit(wrong | {"item": 8})
    for view in (world.view, world.started()):
        assert names(view) == EVERYTHING - {100} | {7, 9}


def test_an_item_without_a_vector_waits_for_a_version_that_gives_it_one(world_of):
    world = world_of("scan")
    world.admit(NO_SCORE, FAILING | {"item": 8})
    for scale, found in ((1.0, {7}), (5e10, set()), (1.0, {7})):
        world.commit(rows=False, scale=scale)
        world.replica.catch_up()
        assert world.view.refresh()
        assert (names(world.view), withheld(world.view)) == (EVERYTHING | found, 2 - len(found))


@pytest.mark.parametrize("kind", ["scored", "tree"])
def test_an_item_whose_score_is_not_finite_is_left_out_of_answers_and_counted(world_of, kind):
    world = world_of(kind)
    world.admit(NO_SCORE)
    before = metrics.RECALL_UNSCORED._value.get()
    for view in (world.view, world.started()):
        assert (names(view), withheld(view)) == (EVERYTHING, 0)
    assert metrics.RECALL_UNSCORED._value.get() == before + 2
