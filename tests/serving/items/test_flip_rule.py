"""Items are embedded anew once the best items of recent users overlap less than the setting asks for."""

import numpy as np
import pytest

from pipeline.model.network.weights import pack, unpack
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.items.flip_rule import FlipRule, overlap
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica
from pipeline.telemetry import metrics
from tests.serving.items.test_scorer import MODEL, SCORE
from tests.support.world.two_towers import TOWERS, USERS, TwoTowers, refreshed_view


@pytest.fixture
def world_of(tmp_path):
    worlds = []

    def make(bound):
        world = TwoTowers(tmp_path, recall={"items": "items.jsonl", "flip_overlap": bound})
        worlds.append(world)
        world.commit()
        replica = Replica.for_predictions(world.project, world.trainer.log)
        replica.catch_up()
        view = ItemView(world.project, replica, world.trainer.log)
        view.refresh()
        return world, replica, view

    yield make
    for world in worlds:
        world.trainer.close()


def publish(world, replica):
    """A version with other weights."""
    world.trainer.next_dense = world.drawn_weights
    world.commit(rows=False)
    replica.catch_up()


def publish_scaled(world, replica, factors=None):
    """A version with the same weights times `factors` by name, by default all twice: other scores in the same order."""
    given = unpack(world.trainer.dense)
    factors = dict.fromkeys(given, 2.0) if factors is None else factors
    weights = {name: array * np.float32(factors.get(name, 1.0)) for name, array in given.items()}
    world.trainer.next_dense = lambda: pack(weights)
    world.trainer.commit(touched={}, flush=True)
    replica.catch_up()


def reading_of(view, metric):
    (found,) = [reading for reading in view.readings() if reading.metric is metric]
    return found.value


def test_a_version_that_keeps_the_best_items_is_skipped_and_one_that_changes_them_is_not(world_of):
    world, replica, view = world_of(0.9)
    view.recall(USERS, 10)
    publish_scaled(world, replica)
    assert not view.refresh()
    assert view.recall(USERS, 10).version == "g0/s0-of-1/1"
    assert reading_of(view, metrics.RECALL_OVERLAP) == 1.0
    publish(world, replica)
    assert view.refresh()
    assert view.recall(USERS, 10).version == "g0/s0-of-1/3"
    assert reading_of(view, metrics.RECALL_OVERLAP) < 0.9


@pytest.mark.parametrize("tree", [None, {"beam": 30, "fan_out": 4, "layers": 1}])
def test_the_overlap_is_that_of_what_the_scorer_finds(tmp_path, tree):
    recall = {"items": "items.jsonl", "scorer": "score", "scored": 20, "max_k": 20, "flip_overlap": 0.9, "tree": tree}
    world = TwoTowers(tmp_path, model=MODEL, labels=[TOWERS, SCORE], recall=recall)
    replica, view = refreshed_view(world)
    view.recall(USERS, 10)
    for factors, skipped in (({"variable/12/kernel": 2.0}, True), ({"variable/12/kernel": -1.0}, False)):
        publish_scaled(world, replica, factors)
        assert view.refresh() is not skipped
        assert (reading_of(view, metrics.RECALL_OVERLAP) == 1.0) is skipped
    world.trainer.close()


def test_after_a_skipped_version_items_have_the_tower_of_the_one_in_use(world_of):
    world, replica, view = world_of(0.5)
    before, vectors = view.recall(USERS, 1_000), next(view.vectors())[1]
    publish_scaled(world, replica)
    assert not view.refresh()
    assert view.recall(USERS, 1_000) == before
    np.testing.assert_array_equal(next(view.vectors())[1], vectors)


@pytest.mark.parametrize(("bound", "users"), [(0.5, []), (1.0, USERS)])
def test_without_recent_users_and_by_default_every_version_is_embedded(world_of, bound, users):
    world, replica, view = world_of(bound)
    if users:
        view.recall(users, 10)
    publish_scaled(world, replica)
    assert view.refresh()


def test_a_version_after_a_rollback_is_embedded_whatever_it_keeps(world_of):
    world, replica, view = world_of(0.5)
    view.recall(USERS, 10)
    publish_scaled(world, replica)
    assert not view.refresh()
    world.trainer.log.create_topic("samples", 1)
    plan = plan_rollback(world.project, world.trainer.log, to=world.trainer.commits[0].id)
    roll_back(world.project, world.trainer.log, plan)
    replica.catch_up()
    assert view.refresh()
    assert view.recall(USERS, 10).version.startswith("g1/")


def test_the_overlap_is_the_share_of_common_items_among_the_best_tenth():
    scores = np.arange(200, dtype=np.float32).reshape(1, 200)
    moved = scores.copy()
    moved[0, :5] = 1_000
    assert overlap(scores, scores) == 1.0
    assert overlap(scores, moved) == 15 / 20
    assert overlap(scores, -scores) == 0.0


@pytest.mark.parametrize(("bound", "count"), [(0.5, 64), (1.0, 0)])
def test_the_most_recent_users_are_remembered_unless_no_version_is_skipped(world_of, bound, count):
    world, _, _ = world_of(1.0)
    tower = Predictor(world.project.config, world.project.root, ("user",))
    rule = FlipRule(bound, lambda: tower)
    assert rule.users is None
    for i in range(70):
        rule.remember(tower.features([{"user": i}, {"user": 1_000}], 0))
    assert (0 if rule.users is None else len(rule.users.dense)) == count
    if rule.users is not None:
        assert (
            rule.users.keys["user"].keys.tolist()
            == tower.features([{"user": i} for i in range(6, 70)], 0).keys["user"].keys.tolist()
        )
