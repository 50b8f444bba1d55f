"""A scorer descends a tree of items with a beam: with a beam of all nodes it finds the best of all items, and in any
case what a descent by hand finds; by one version, which the answer names.
"""

import json

import numpy as np
import pytest

from pipeline.recall.item_tree import ItemTree, TreeShape
from pipeline.serving.items.attributes import Allowed
from pipeline.serving.items.catalogue import ids_of
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica
from tests.serving.items.test_scorer import MODEL, SCORE, scores_of
from tests.support.world.two_towers import ITEMS, TOWERS, USERS, TwoTowers

RECALL = {"topic": "items", "scorer": "score", "max_k": 60}
WIDE, NARROW = {"beam": 30, "fan_out": 3, "layers": 2}, {"beam": 3, "fan_out": 4, "layers": 2}


class World(TwoTowers):
    """A replica whose items are a tree."""

    def __init__(self, root, tree, attributes=None, **towers):
        recall = RECALL | {"tree": tree, "max_k": tree["beam"], "attributes": attributes or {}}
        labels = [TOWERS | {"towers": TOWERS["towers"] | towers}, SCORE]
        super().__init__(root, model=MODEL, labels=labels, recall=recall)
        self.commit()
        self.trainer.log.create_topic("items", 1)
        self.append(*self.items)
        self.replica = Replica.for_predictions(self.project, self.trainer.log)
        self.view = self.new_view()

    def new_view(self):
        self.replica.catch_up()
        view = ItemView(self.project, self.replica, self.trainer.log)
        view.admit()
        view.refresh()
        return view

    def append(self, *items):
        self.trainer.log.append("items", 0, [json.dumps(item).encode() for item in items])

    def publish(self, **chosen):
        self.commit(**chosen)
        self.replica.catch_up()


@pytest.fixture
def world_of(tmp_path):
    worlds = []

    def of(*arguments, **named):
        worlds.append(World(tmp_path, *arguments, **named))
        return worlds[-1]

    yield of
    for world in worlds:
        world.trainer.close()


def best_of(scores, k, items=ITEMS):
    """For each user, the names of the items with the highest scores."""
    ids = ids_of([item["item"] for item in items])
    return [[items[place]["item"] for place in np.lexsort((ids, -row))[:k].tolist()] for row in scores]


def test_a_beam_of_all_nodes_finds_the_best_of_all_items(world_of):
    world = world_of(WIDE)
    found, scores = world.view.recall(USERS, 7), scores_of(world.replica)
    assert found.items == best_of(scores, 7)
    np.testing.assert_allclose(found.scores, -np.sort(-scores, axis=1)[:, :7], rtol=1e-5, atol=1e-5)
    assert found.version == world.replica.version


def test_a_narrow_beam_finds_good_items_and_scores_them_alike(world_of):
    world = world_of(NARROW)
    found, scores = world.view.recall(USERS, 3), scores_of(world.replica)
    places = {item["item"]: place for place, item in enumerate(ITEMS)}
    for user, (names, given) in enumerate(zip(found.items, found.scores, strict=True)):
        wanted = scores[user][[places[name] for name in names]]
        np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)
        assert (np.diff(wanted) <= 1e-5).all()
        assert wanted.mean() > np.sort(scores[user])[25:].mean()  # better than a random item of the better half
    assert any(names != best for names, best in zip(found.items, best_of(scores, 3), strict=True))


def test_until_the_tree_is_built_anew_its_scorer_is_that_of_the_version_before(world_of):
    world = world_of(WIDE)
    dense, version = world.replica.dense, world.replica.version
    world.publish(rows=False)
    scorer = Predictor(world.project.config, world.project.root, ("score",))
    scorer.load(dense)
    pairs = [user | item for user in USERS for item in ITEMS]
    before = scorer.predict(scorer.features(pairs, 0), world.replica.lookup)[:, 0].reshape(len(USERS), len(ITEMS))
    found = world.view.recall(USERS, 5)
    assert (found.version, found.items) == (version, best_of(before, 5))
    assert found.items != best_of(scores_of(world.replica), 5)
    assert world.view.refresh()
    found = world.view.recall(USERS, 5)
    assert (found.version, found.items) == (world.replica.version, best_of(scores_of(world.replica), 5))


def test_items_join_change_and_leave_between_two_versions(world_of):
    world = world_of(WIDE)
    new, changed = [{"item": 900 + i, "price": i / 7} for i in range(20)], {"item": 103, "price": 9.0}
    gone = [{"item": item["item"], "$removed": True} for item in ITEMS[10:20]]
    world.append(*new, changed, *gone)
    assert world.view.admit() == 31
    items = [item for item in ITEMS if item["item"] != 103 and item not in ITEMS[10:20]] + [changed, *new]
    assert world.view.recall(USERS, 12).items == best_of(scores_of(world.replica, items), 12, items)
    world.append({"item": 103, "$removed": True})
    world.view.admit()
    assert not any(103 in names for names in world.view.recall(USERS, 30).items)


@pytest.mark.parametrize(("joined", "removed"), [(13, 0), (0, 13), (6, 7)])
def test_a_tree_is_built_anew_once_a_quarter_of_its_items_have_changed(world_of, joined, removed):
    world = world_of(NARROW)
    users = [{"user": i} for i in range(40)]
    new = [{"item": 900 + i, "price": 60.0 + i} for i in range(joined)]
    gone = [{"item": item["item"], "$removed": True} for item in ITEMS[:removed]]
    *first, last = [*new, *gone]
    world.append(*first)
    world.view.admit()
    assert not world.view.refresh()
    world.append(last)
    world.view.admit()
    before = world.view.recall(users, 3)
    assert world.view.refresh()
    assert not world.view.refresh()
    rebuilt = world.view.recall(users, 3)
    assert (rebuilt, rebuilt.version) == (world.new_view().recall(users, 3), before.version)
    assert rebuilt != before


def test_filters_and_exclusions_leave_items_out(world_of):
    world = world_of(WIDE, attributes={"cheap": "price < 2.5"})
    allowed = world.view.attributes.allowed({"all": ["cheap"]}, [100, 101])
    items = [item for item in ITEMS if item["price"] < 2.5 and item["item"] not in (100, 101)]
    found = world.view.recall(USERS, 30, allowed)
    assert found.items == best_of(scores_of(world.replica, items), 30, items)
    assert world.view.recall(USERS[:1], 5, Allowed(excluded=ids_of([i["item"] for i in ITEMS]))).items == [[]]


def digest_of(view):
    """Of a tree of all items of a view."""
    names, vectors = zip(*view.vectors(), strict=True)
    ids = ids_of([name for some in names for name in some])
    return ItemTree(ids, np.concatenate(vectors), np.zeros(len(ids), np.uint64), TreeShape(4, 2)).digest()


def test_a_replay_gives_the_same_tree_and_answers(world_of):
    world = world_of(NARROW)

    users = [{"user": i} for i in range(40)]
    world.append({"item": 900})
    world.view.admit()

    def played():
        view = world.new_view()
        return digest_of(view), view.recall(users, 3)

    assert played() == played()
    assert digest_of(world.view) == played()[0]
    before = played()
    world.append({"item": 100, "price": 9.0})
    assert played()[0] != before[0]


def test_no_item_is_left_and_new_ones_are_found(world_of):
    world = world_of(NARROW)
    world.append(*({"item": item["item"], "$removed": True} for item in ITEMS))
    world.view.admit()
    assert world.view.recall(USERS[:1], 3).items == [[]]
    world.publish()
    assert world.view.refresh()
    assert world.view.recall(USERS[:1], 3).items == [[]]
    world.append({"item": 7})
    world.view.admit()
    assert world.view.recall(USERS[:1], 3).items == [[7]]


def test_items_without_a_direction_are_withheld_until_they_have_one(world_of):
    world = world_of(WIDE, normalise=True)
    count = len(world.view.recall(USERS[:1], 30).items[0])
    world.publish(rows=False, scale=0.0)
    assert world.view.refresh()
    assert (count, world.view.recall(USERS[:1], 30).items) == (30, [[]])
    world.publish(rows=False)
    assert world.view.refresh()
    assert len(world.view.recall(USERS[:1], 30).items[0]) == 30
