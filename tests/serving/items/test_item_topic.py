"""Items from a topic: admitted at once by the towers in use, replaced, removed, and the same after a replay."""

import json

import numpy as np
import pytest
from structlog.testing import capture_logs

from pipeline.errors import LogError, ModelError
from pipeline.ingest.items import ingest_items
from pipeline.logs.interface.log import read_to_end
from pipeline.recall.scan_index import ScanIndex
from pipeline.serving.items.catalogue import ids_of
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica
from pipeline.telemetry import metrics
from tests.support.world.two_towers import ITEMS, USERS, TwoTowers

COLUMNS = {"id": "int", "user": "int", "item": "string", "price": "float"}
TEXT_ITEMS = {"key": ["id"], "impressions": {"columns": COLUMNS}, "clicks": {"columns": {"id": "int"}}}
ONE_ID = ["xxxxxxx" + a + 24 * "y" + b + 16 * "z" for a, b in (("dwtgmlqu", "cavltals"), ("onwaaadv", "ZrPjvNS~"))]
"""Two names made to have one id."""
RECALLS = {"file": {"items": "items.jsonl", "topic": "items"}, "topic": {"topic": "items"}}


class World(TwoTowers):
    """A replica and its items, whose topic has `ITEMS` unless the file has them."""

    def __init__(self, root, source="topic", **sections):
        super().__init__(root, recall=RECALLS[source], **sections)
        self.commit()
        self.log = self.trainer.log
        self.replica = self.new_replica()
        self.view = ItemView(self.project, self.replica, self.log)
        if source == "topic":
            self.append(*self.items)

    def new_replica(self):
        replica = Replica.for_predictions(self.project, self.log)
        replica.catch_up()
        return replica

    def append(self, *items):
        self.log.append("items", 0, [json.dumps(item).encode() for item in items])

    def publish(self, **chosen):
        self.commit(**chosen)
        self.replica.catch_up()

    def names(self):
        return {*self.view.recall(USERS[:1], 1_000).items[0]}


@pytest.fixture(params=RECALLS)
def world(tmp_path, request):
    world = World(tmp_path, request.param)
    yield world
    world.trainer.close()


@pytest.fixture
def by_topic(tmp_path):
    world = World(tmp_path)
    world.view.admit()
    world.view.refresh()
    yield world
    world.trainer.close()


def digest_of(view):
    """Of an index with all vectors of a view."""
    index = None
    for names, vectors in view.vectors():
        index = index or ScanIndex(vectors.shape[1])
        index.put(ids_of(names), vectors)
    return index.digest()


def test_items_of_the_file_and_of_the_topic_are_found(world):
    world.append({"item": 7})
    assert world.view.admit()
    assert world.view.refresh()
    assert world.names() == {item["item"] for item in ITEMS} | {7}


def test_items_are_admitted_changed_and_removed_between_two_versions(world):
    world.view.admit()
    world.view.refresh()
    before = world.view.recall(USERS[:1], 1_000)
    world.append({"item": 7}, {"item": 101, "$removed": True}, {"item": 102, "price": 9.5})
    assert world.view.admit() == 3
    after = world.view.recall(USERS[:1], 1_000)
    assert {*after.items[0]} == {item["item"] for item in ITEMS} - {101} | {7}
    assert score_of(before, 102) != score_of(after, 102)
    assert score_of(before, 103) == score_of(after, 103)
    assert before.version == after.version
    assert not world.view.refresh()
    assert world.view.admit() == 0


def test_a_removal_is_a_record_without_a_value(by_topic):
    by_topic.log.append("items", 0, [b'{"item": 7}', b"", b"", b'{"item": 8}'], keys=[b"7", b"101", b'"102"', b"9"])
    assert by_topic.view.admit() == 3
    assert by_topic.names() == {item["item"] for item in ITEMS} - {101} | {7}


def score_of(recalled, name):
    return recalled.scores[0][recalled.items[0].index(name)]


def test_the_last_change_of_an_item_counts(by_topic):
    by_topic.append({"item": 7}, {"item": 7, "$removed": True}, {"item": 8, "$removed": True}, {"item": 8})
    by_topic.view.admit()
    assert by_topic.names() & {7, 8} == {8}
    by_topic.append({"item": 8, "$removed": True})
    by_topic.append({"item": 7})
    by_topic.view.admit()
    assert by_topic.names() & {7, 8} == {7}


def test_changes_are_embedded_by_the_tower_in_use_while_a_newer_version_is_served(by_topic):
    dense = by_topic.replica.dense
    by_topic.publish()
    assert by_topic.replica.dense != dense
    by_topic.append(*({"item": item["item"], "price": item["price"]} for item in ITEMS))
    by_topic.view.admit()
    found = by_topic.view.recall(USERS, 10)
    assert found.version == "g0/s0-of-1/1"
    users, items = (vectors_by(by_topic, dense, *each) for each in (("user", USERS), ("item", ITEMS)))
    scores = users @ items.T
    np.testing.assert_allclose(found.scores, -np.sort(-scores, axis=1)[:, :10], rtol=1e-3, atol=1e-3)


def vectors_by(world, dense, tower, instances):
    predictor = Predictor(world.project.config, world.project.root, (tower,))
    predictor.load(dense)
    return predictor.predict(predictor.features(instances, 0), world.replica.lookup)


def test_after_a_version_that_is_not_finite_changes_are_embedded_by_the_one_in_use(by_topic):
    found = by_topic.view.recall(USERS[:1], 1_000)
    by_topic.publish(rows=False, scale=1e38)
    with pytest.raises(ModelError, match=r"the vector of item 100 exceeds 2\^40"):
        by_topic.view.refresh()
    by_topic.append(ITEMS[0])
    by_topic.view.admit()
    assert by_topic.view.recall(USERS[:1], 1_000) == found


@pytest.mark.parametrize(
    "record",
    [
        b"{",
        b"7",
        b'{"price": 1}',
        b'{"item": 7, "prize": 1}',
        b'{"item": 7, "price": "dear"}',
        b'{"item": 7, "price": 3e38}',
        b'{"item": 7, "$removed": 1}',
        b'{"item": 7, "$removed": true, "price": 1}',
        b'{"item": "\\ud800"}',
        b'{"item": 7, "$removed": %s%s}' % (b"[" * 900, b"]" * 900),
    ],
)
def test_a_wrong_change_is_counted_and_the_others_apply(by_topic, record):
    refused = metrics.RECALL_REFUSED._value.get()
    by_topic.log.append("items", 0, [b'{"item": 8}', record, b'[{"item": 9}, {"item": 100, "$removed": true}]'])
    by_topic.view.admit()
    assert by_topic.names() == {item["item"] for item in ITEMS} - {100} | {8, 9}
    assert metrics.RECALL_REFUSED._value.get() == refused + 1


def test_a_name_made_to_have_the_id_of_an_item_neither_replaces_nor_removes_it(tmp_path):
    first, second = ONE_ID
    assert ids_of([first]) == ids_of([second])
    world = World(tmp_path, events=TEXT_ITEMS, items=[{"item": "i1"}, {"item": first}])
    world.view.admit()
    world.view.refresh()
    world.append({"item": second}, {"item": second, "$removed": True}, {"item": "i2"})
    world.append({"item": second}, {"item": "i3"})
    world.view.admit()
    assert world.names() == {"i1", "i2", "i3", first}
    replayed = ItemView(world.project, world.replica, world.log)
    replayed.refresh()
    assert replayed.recall(USERS, 10) == world.view.recall(USERS, 10)
    world.trainer.close()


def test_a_replay_of_the_topic_gives_the_same_index(by_topic):
    for round in range(5):
        by_topic.append(*({"item": 100 + i, "price": i * round} for i in range(0, 90, round + 1)))
        by_topic.append(*({"item": 100 + i, "$removed": True} for i in range(round, 90, 7)))
        by_topic.view.admit()
        if round % 2:
            by_topic.publish()
            by_topic.view.refresh()
    by_topic.publish()
    by_topic.view.refresh()
    replayed = ItemView(by_topic.project, by_topic.new_replica(), by_topic.log)
    replayed.refresh()
    assert digest_of(replayed) == digest_of(by_topic.view)
    assert replayed.recall(USERS, 30) == by_topic.view.recall(USERS, 30)


def test_the_items_do_not_depend_on_how_reads_cut_the_records(tmp_path):
    world = World(tmp_path, events=TEXT_ITEMS, items=[{"item": f"i{i}"} for i in range(8)])
    random = np.random.default_rng(5)
    world.view.admit()
    world.view.refresh()
    views = [world.view, *(ItemView(world.project, world.replica, world.log) for _ in range(2))]
    for view in views:
        view.refresh()
    for _ in range(150):
        name = [*(f"i{i}" for i in range(8)), *ONE_ID][random.integers(10)]
        change = [{"price": float(random.integers(50))}, {"prize": 1}, {"price": "dear"}, {"$removed": True}]
        world.append({"item": name} | change[random.integers(4)])
        for view, often in zip(views, (1.0, 0.2, 0.02), strict=True):
            if random.random() < often:
                view.admit()
    world.commit()
    world.replica.catch_up()
    views.append(ItemView(world.project, world.replica, world.log))
    for view in views:
        view.admit()
        view.refresh()
    assert {*views[0].recall(USERS[:1], 20).items[0]} & {*ONE_ID}
    assert len({digest_of(view) for view in views}) == 1
    assert all(view.recall(USERS, 20) == views[0].recall(USERS, 20) for view in views)
    world.trainer.close()


def test_a_wrong_change_leaves_the_item_as_the_change_before_it_in_the_same_read_has_it(by_topic):
    by_topic.append({"item": 7}, {"item": 7, "prize": 1}, {"item": 8}, {"item": 8, "$removed": 1})
    by_topic.append({"item": 9}, {"item": 9, "$removed": True}, {"item": 9, "price": "dear"})
    by_topic.view.admit()
    assert by_topic.names() & {7, 8, 9} == {7, 8}


def test_a_read_of_all_items_that_fails_leaves_those_before_and_the_place_in_the_topic(tmp_path):
    world = World(tmp_path, "file")
    world.append({"item": 7}, *({"item": 8, "price": i} for i in range(1_500)), {"item": 7, "$removed": True})
    log = Unavailable(world.log)
    view = ItemView(world.project, world.replica, log)
    view.refresh()
    new = world.project.root / "new.jsonl"
    new.write_text('{"item": 500}\n')
    new.replace(world.project.root / "items.jsonl")
    log.reads_left = 1
    with pytest.raises(LogError, match="the broker is not available"):
        view.reread()
    log.reads_left = None
    assert view.admit() == 0
    assert {*view.recall(USERS[:1], 1_000).items[0]} == {item["item"] for item in ITEMS} | {8}
    assert view.reread()
    assert view.refresh()
    assert {*view.recall(USERS[:1], 1_000).items[0]} == {8, 500}
    world.trainer.close()


class Unavailable:
    """A log that fails after `reads_left` reads."""

    def __init__(self, log):
        self._log, self.reads_left = log, None

    def __getattr__(self, name):
        return getattr(self._log, name)

    def read(self, *arguments, **named):
        if self.reads_left == 0:
            raise LogError("the broker is not available")
        self.reads_left = None if self.reads_left is None else self.reads_left - 1
        return self._log.read(*arguments, **named)


def test_all_items_may_be_removed_and_come_back(by_topic):
    by_topic.append(*({"item": item["item"], "$removed": True} for item in ITEMS))
    by_topic.view.admit()
    assert by_topic.view.recall(USERS, 5).items == [[]] * len(USERS)
    by_topic.publish()
    assert by_topic.view.refresh()
    by_topic.append({"item": 7})
    by_topic.view.admit()
    assert by_topic.names() == {7}


def test_many_small_changes_leave_the_items_as_one_large_change_does(by_topic):
    for i in range(200):
        by_topic.append({"item": 1_000 + i % 20, "price": i})
        by_topic.view.admit()
    by_topic.publish()
    by_topic.view.refresh()
    assert by_topic.names() == {item["item"] for item in ITEMS} | {1_000 + i for i in range(20)}
    assert sum(len(names) for names, _ in by_topic.view.vectors()) == len(ITEMS) + 20


def test_a_replaced_file_keeps_the_changes_of_the_topic(tmp_path):
    world = World(tmp_path, "file")
    world.append({"item": 7}, {"item": 100, "$removed": True})
    world.view.admit()
    world.view.refresh()
    new = world.project.root / "new.jsonl"
    new.write_text('{"item": 100}\n{"item": 500}\n')
    new.replace(world.project.root / "items.jsonl")
    assert world.view.reread()
    assert world.view.refresh()
    assert world.names() == {7, 500}
    world.trainer.close()


def test_a_removed_item_of_the_file_stays_removed_once_the_topic_was_compacted(tmp_path):
    world, path = World(tmp_path, "file"), tmp_path / "changed.jsonl"
    path.write_text('{"item": 7}\n{"item": 100, "$removed": true}\n{"item": 101, "$removed": true}\n{"item": 101}\n')
    ingest_items(world.project, world.log, [path])
    kept = {record.key: record for records in read_to_end(world.log, "items", 0) for record in records if record.value}
    world.log.delete_topic("items")
    world.log.create_topic("items", 1)
    world.log.append("items", 0, [record.value for record in kept.values()], keys=[*kept])
    view = ItemView(world.project, world.replica, world.log)
    view.refresh()
    assert {*view.recall(USERS[:1], 1_000).items[0]} == {item["item"] for item in ITEMS} - {100} | {7}
    world.trainer.close()


def test_an_ingested_file_of_items_is_found(by_topic, tmp_path):
    path = tmp_path / "changed.jsonl"
    path.write_text('{"item": 7, "price": 1}\n\n{"item": 100, "$removed": true}\n{"item": 8}\n')
    report = ingest_items(by_topic.project, by_topic.log, [path])
    assert (report.put, report.removed) == (2, 1)
    by_topic.view.admit()
    assert by_topic.names() == {item["item"] for item in ITEMS} - {100} | {7, 8}


def test_an_item_whose_vector_overflows_before_it_is_normalised_is_withheld(tmp_path):
    towers = {"name": "label", "loss": "in_batch", "towers": {"item_column": "item", "normalise": True}}
    world = World(tmp_path, labels=[towers])
    world.append({"item": 7, "price": 1e30}, {"item": 8, "price": 1.0})
    with capture_logs() as logged:
        world.view.admit()
        world.view.refresh()
    assert {(each["item"], each["problem"].partition(",")[0]) for each in logged if "item" in each} == {
        (7, "the vector of item 7 has length 0")
    }
    assert {7, 8} & world.names() == {8}
    world.append({"item": 7, "price": 1.0}, {"item": 8, "price": 1e30})
    world.view.admit()
    assert {7, 8} & world.names() == {7}
    (withheld,) = [each.value for each in world.view.readings() if each.metric is metrics.RECALL_WITHHELD]
    assert withheld == 1
    world.trainer.close()
