"""A label orders the items that the scan found: as the whole model predicts it, by one version."""

import json

import numpy as np
import pytest

from pipeline.errors import ConfigError, ModelError
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica
from tests.support.world.two_towers import ITEMS, TOWERS, USERS, TwoTowers, refreshed_view

MODEL = """
import keras
from keras import layers

def build(inputs):
    user = layers.Dense(4)(inputs["user"])
    item = layers.Dense(4)(layers.Concatenate()([inputs["item"], inputs["price"]]))
    pair = layers.Concatenate()([layers.Dense(8)(inputs["item"]), layers.Dense(8)(inputs["user"]), inputs["price"]])
    for _ in range(2):
        pair = layers.Dense(8, activation="leaky_relu")(pair)
    score = layers.Dense(1)(pair)
    return keras.Model(inputs, {"user": user, "item": item, "score": score})
"""
SCORE = {"name": "score", "target": "label", "loss": "squared"}
RECALL = {"topic": "items", "scorer": "score", "scored": 20, "max_k": 20}
PLACES = {item["item"]: place for place, item in enumerate(ITEMS)}


@pytest.fixture
def world(tmp_path):
    world = TwoTowers(tmp_path, model=MODEL, labels=[TOWERS, SCORE], recall=RECALL)
    world.commit()
    world.trainer.log.create_topic("items", 1)
    world.trainer.log.append("items", 0, [json.dumps(item).encode() for item in ITEMS])
    yield world
    world.trainer.close()


@pytest.fixture
def replica(world):
    replica = Replica.for_predictions(world.project, world.trainer.log)
    replica.catch_up()
    return replica


@pytest.fixture
def view(world, replica):
    view = ItemView(world.project, replica, world.trainer.log)
    view.admit()
    view.refresh()
    return view


def scores_of(replica, items=ITEMS):
    """[users, items] the predictions of `score` by the whole model."""
    pairs = [user | item for user in USERS for item in items]
    return replica.predict(pairs)[0][:, 1].reshape(len(USERS), len(items))


def products_of(replica):
    """[users, items] products of the vectors that the whole model serves."""
    users, items = replica.predict(USERS)[0], replica.predict(ITEMS)[0]
    dim = (users.shape[1] - 2) // 2
    return users[:, 2 : 2 + dim] @ items[:, 2 + dim :].T


def assert_ordered(found, scores, products, k):
    """Each user has the k best by `scores` of the 20 with the largest products."""
    for user, (names, given) in enumerate(zip(found.items, found.scores, strict=True)):
        kept = np.argsort(-products[user], kind="stable")[:20]
        wanted = kept[np.argsort(-scores[user][kept], kind="stable")][:k]
        assert [PLACES[name] for name in names] == wanted.tolist()
        np.testing.assert_allclose(given, scores[user][wanted], rtol=1e-5, atol=1e-5)


def test_the_scanned_items_are_ordered_by_the_predictions_of_the_whole_model(view, replica):
    found, scores, products = view.recall(USERS, 7), scores_of(replica), products_of(replica)
    assert_ordered(found, scores, products, 7)
    by_product = np.argsort(-products, axis=1)[:, :7].tolist()
    assert [[PLACES[name] for name in names] for names in found.items] != by_product
    assert len(view.recall(USERS, 20).items[0]) == 20


def test_until_the_items_are_embedded_the_scorer_is_that_of_the_version_before(world, replica, view):
    dense, products, version = replica.dense, products_of(replica), replica.version
    world.commit(rows=False)
    replica.catch_up()
    scorer = Predictor(world.project.config, world.project.root, ("score",))
    scorer.load(dense)
    pairs = [user | item for user in USERS for item in ITEMS]
    before = scorer.predict(scorer.features(pairs, 0), replica.lookup)[:, 0].reshape(len(USERS), len(ITEMS))
    assert not np.array_equal(before, scores_of(replica))
    found = view.recall(USERS, 5)
    assert found.version == version
    assert_ordered(found, before, products, 5)
    view.refresh()
    assert_ordered(view.recall(USERS, 5), scores_of(replica), products_of(replica), 5)


def test_changed_and_removed_items_are_scored_as_they_are_now(world, replica, view):
    names = view.recall(USERS[:1], 20).items[0]
    changed, removed = names[3], names[0]
    item = {"item": changed, "price": 0.25}
    world.trainer.log.append("items", 0, [json.dumps(each).encode() for each in (item, REMOVAL | {"item": removed})])
    view.admit()
    found = view.recall(USERS[:1], 20)
    assert removed not in found.items[0]
    if changed in found.items[0]:
        score = found.scores[0][found.items[0].index(changed)]
        assert score == pytest.approx(float(scores_of(replica, [item])[0, 0]), rel=1e-5)
    else:
        pytest.fail("the change was to keep the item among the first twenty")


REMOVAL = {"$removed": True}


def test_a_prediction_that_is_not_finite_is_an_error(world, replica, view):
    world.commit(rows=False, scale=1e10)  # a vector has one factor of it, a score four
    replica.catch_up()
    assert view.refresh()
    with pytest.raises(ModelError, match="a prediction of score is not finite"):
        view.recall(USERS, 5)


PRICE_FOR_THE_SCORER = MODEL.replace('layers.Concatenate()([inputs["item"], inputs["price"]])', 'inputs["item"] * 1.0')


def assert_scores_of_items(world, of_users, k):
    """The columns `of_users` change no score: they are the items'."""
    replica, view = refreshed_view(world)
    found, scores = view.recall([user | of_users for user in USERS], k), scores_of(replica)
    for names, given, wanted in zip(found.items, found.scores, scores, strict=True):
        np.testing.assert_allclose(given, wanted[[PLACES[name] for name in names]], rtol=1e-5, atol=1e-5)
    world.trainer.close()


@pytest.mark.parametrize("declared", [{"item_columns": ["price"]}, {"attributes": {"cheap": "price < 2"}}])
def test_what_the_scorer_alone_reads_of_an_item_is_the_items(tmp_path, declared):
    assert PRICE_FOR_THE_SCORER != MODEL
    recall = RECALL | {"topic": None, "items": "items.jsonl", "scored": 50, "max_k": 50} | declared
    world = TwoTowers(tmp_path, model=PRICE_FOR_THE_SCORER, labels=[TOWERS, SCORE], recall=recall)
    assert_scores_of_items(world, {"price": 99.0}, 50)


def test_the_name_of_an_item_is_the_items_also_if_its_tower_does_not_read_it(tmp_path):
    model = MODEL.replace('layers.Concatenate()([inputs["item"], inputs["price"]])', 'inputs["price"] * 1.0')
    assert model != MODEL
    world = TwoTowers(tmp_path, model=model, labels=[TOWERS, SCORE], recall=RECALL | {"items": "items.jsonl"})
    assert_scores_of_items(world, {"item": 100}, 20)


def test_a_field_of_user_and_item_is_refused(tmp_path):
    fields = [
        {"name": "user", "columns": ["user"], "dim": 4},
        {"name": "item", "columns": ["item"], "dim": 4},
        {"name": "cross", "columns": ["user", "item"], "transform": "cross", "dim": 4},
    ]
    model = MODEL.replace('inputs["user"]), inputs["price"]', 'inputs["user"]), inputs["cross"], inputs["price"]')
    assert model != MODEL
    world = TwoTowers(tmp_path, model=model, labels=[TOWERS, SCORE], recall=RECALL, fields=fields)
    replica = Replica.for_predictions(world.project, world.trainer.log)
    with pytest.raises(ConfigError, match=r"recall\.scorer score reads cross of item, user: columns of users and of"):
        ItemView(world.project, replica, world.trainer.log)
    world.trainer.close()
