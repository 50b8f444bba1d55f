"""The items of two towers: found as the served vectors order them, by towers of one version."""

import threading

import numpy as np
import pytest

from pipeline.errors import InputError, ModelError
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica
from tests.support.world.two_towers import ITEMS, TWO_TOWERS, USERS, TwoTowers

NAMES = np.array([item["item"] for item in ITEMS])


@pytest.fixture
def world(tmp_path):
    world = TwoTowers(tmp_path)
    world.commit()
    yield world
    world.trainer.close()


@pytest.fixture
def replica(world):
    replica = Replica.for_predictions(world.project, world.trainer.log)
    replica.catch_up()
    return replica


def vectors_of(replica, instances, tower):
    """The vectors that predictions of the whole model hold."""
    predicted, _ = replica.predict(instances)
    dim = (predicted.shape[1] - 1) // 2
    start = 1 if tower == "user" else 1 + dim
    return predicted[:, start : start + dim]


def best(users, items, k):
    """Item names and scores by the exact product, best first."""
    scores = users @ items.T
    order = np.argsort(-scores, axis=1)[:, :k]
    return NAMES[order].tolist(), np.take_along_axis(scores, order, axis=1)


def expected(replica, k=10):
    return best(vectors_of(replica, USERS, "user"), vectors_of(replica, ITEMS, "item"), k)


def test_the_items_with_the_largest_products_of_served_vectors_are_found(world, replica):
    view = ItemView(world.project, replica, world.trainer.log)
    assert not view.ready
    with pytest.raises(InputError, match="the items are not embedded yet"):
        view.recall(USERS, 10)
    assert view.refresh()
    found, (names, scores) = view.recall(USERS, 10), expected(replica)
    assert found.items == names
    np.testing.assert_allclose(found.scores, scores, rtol=1e-3, atol=1e-3)
    assert found.version == "g0/s0-of-1/1"
    assert [len(row) for row in view.recall(USERS, 1_000).items] == [len(ITEMS)] * len(USERS)


def test_a_version_is_embedded_once(world, replica):
    view = ItemView(world.project, replica, world.trainer.log)
    assert [view.refresh(), view.refresh()] == [True, False]
    world.commit()
    assert not view.refresh()
    replica.catch_up()
    assert [view.refresh(), view.refresh()] == [True, False]
    found = view.recall(USERS, 10)
    assert (found.items, found.version) == (expected(replica)[0], "g0/s0-of-1/2")


def test_until_the_items_of_a_version_are_embedded_users_have_the_tower_of_the_one_before(world, replica):
    view = ItemView(world.project, replica, world.trainer.log)
    view.refresh()
    items, dense = vectors_of(replica, ITEMS, "item"), replica.dense
    world.commit()
    replica.catch_up()
    assert replica.dense != dense
    tower = Predictor(world.project.config, world.project.root, ("user",))
    tower.load(dense)
    users = tower.predict(tower.features(USERS, 0), replica.lookup)
    found, (names, scores) = view.recall(USERS, 10), best(users, items, 10)
    assert (found.items, found.version) == (names, "g0/s0-of-1/1")
    np.testing.assert_allclose(found.scores, scores, rtol=1e-3, atol=1e-3)


def test_every_answer_during_switches_is_that_of_the_version_it_names(world, replica):
    view, found, done = ItemView(world.project, replica, world.trainer.log), [], threading.Event()
    view.refresh()

    def recall():
        while not done.is_set():
            found.append(view.recall(USERS, 10))

    wanted = {replica.version: expected(replica)}
    reader = threading.Thread(target=recall)
    reader.start()
    for _ in range(8):
        world.commit(rows=False)
        replica.catch_up()
        wanted[replica.version] = expected(replica)
        view.refresh()
    done.set()
    reader.join()
    found.append(view.recall(USERS, 10))
    assert len({scores.tobytes() for _, scores in wanted.values()}) == 9
    assert found[-1].version == "g0/s0-of-1/9"
    for each in found:
        names, scores = wanted[each.version]
        assert each.items == names
        np.testing.assert_allclose(each.scores, scores, rtol=1e-3, atol=1e-3)


def test_a_file_that_was_replaced_is_read_again_and_a_wrong_one_changes_nothing(world, replica):
    path = world.project.root / "items.jsonl"
    view = ItemView(world.project, replica, world.trainer.log)
    view.refresh()
    assert not view.reread()
    replace_by(path, '{"item": 7}\n{"item": 100}\n')
    assert view.reread()
    assert len(view.recall(USERS[:1], 50).items[0]) == 50
    assert [view.refresh(), view.refresh()] == [True, False]
    assert {*view.recall(USERS[:1], 50).items[0]} == {7, 100}
    for wrong in ("{", ""):
        replace_by(path, wrong)
        with pytest.raises(InputError, match=r"items\.jsonl"):
            view.reread()
    path.unlink()
    with pytest.raises(InputError, match="items cannot be read from"):
        view.reread()
    world.commit()
    replica.catch_up()
    assert view.refresh()
    assert ({*view.recall(USERS[:1], 50).items[0]}, view.recall(USERS, 1).version) == ({7, 100}, "g0/s0-of-1/2")


def replace_by(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_vectors_that_are_not_finite_leave_the_version_before_in_use(world, replica):
    view = ItemView(world.project, replica, world.trainer.log)
    view.refresh()
    world.commit(scale=1e38)
    replica.catch_up()
    with pytest.raises(ModelError, match=r"the vector of item 100 is not finite: \["):
        view.refresh()
    found = view.recall(USERS[:1], 3)
    assert found.version == "g0/s0-of-1/1"
    world.commit()
    replica.catch_up()
    assert view.refresh()


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (None, "items cannot be read from .*items.jsonl: .* hint: set recall.items"),
        ("\n", "items.jsonl has no items. hint: a JSON object in each line"),
        ('{"item": 1}\n{"item": 2\n', "items.jsonl, line 2 is not json: "),
        ("[1]", "items.jsonl, line 1: got list, wanted an object of raw columns"),
        ('{"price": 1}', "items.jsonl, line 1: item is None, wanted a text or an integer"),
        ('{"item": true}', "items.jsonl, line 1: item is True, wanted a text or an integer"),
        ('{"item": 7}\n\n{"item": 7}', "items.jsonl, line 3: item 7 is there twice. hint: keep one of them"),
        ('{"item": 7}\n{"item": 8, "prize": 1}', "items.jsonl, line 2: has column prize"),
        ('{"item": 7, "price": "dear"}', "items.jsonl, line 1: column price: got 'dear'"),
        ('{"item": 7}\n\n{"item": 8, "price": NaN}', "items.jsonl, line 3: column price: got nan"),
        ('{"item": 7, "price": ' + "[" * 100_000, "items.jsonl, line 1 is not json: "),
    ],
)
def test_wrong_files_of_items_are_refused(world, replica, items, message):
    path = world.project.root / "items.jsonl"
    path.unlink() if items is None else path.write_text(items)
    with pytest.raises(InputError, match=message):
        ItemView(world.project, replica, world.trainer.log)


def test_a_file_with_an_item_for_which_the_users_function_fails_is_refused_as_a_wrong_one(tmp_path):
    model = TWO_TOWERS + "\ndef known(items, at_ms):\n    assert 7 not in items.to_pylist()\n    return items\n"
    fields = [{"name": "user", "columns": ["user"], "dim": 4}]
    fields.append({"name": "item", "columns": ["item"], "dim": 4, "transform": "model:known"})
    world = TwoTowers(tmp_path, model=model, fields=fields)
    replica = Replica.for_predictions(world.project, world.trainer.log)
    replace_by(tmp_path / "items.jsonl", '{"item": 100}\n{"item": 7}\n')
    view = ItemView(world.project, replica, world.trainer.log, patient=True)
    assert "items.jsonl, line 2: " in view.problem
    assert "model:known failed" in view.problem
    world.trainer.close()


def test_items_may_have_texts_as_names_and_any_number(tmp_path):
    columns = {"id": "int", "user": "int", "item": "string", "price": "float"}
    events = {"key": ["id"], "impressions": {"columns": columns}, "clicks": {"columns": {"id": "int"}}}
    world = TwoTowers(tmp_path, items=[{"item": f"i{i}"} for i in range(5_000)], events=events)
    world.commit()
    replica = Replica.for_predictions(world.project, world.trainer.log)
    replica.catch_up()
    view = ItemView(world.project, replica, world.trainer.log)
    view.refresh()
    (row,) = view.recall(USERS[:1], 5_000).items
    assert sorted(row) == sorted(f"i{i}" for i in range(5_000))
    world.trainer.close()
