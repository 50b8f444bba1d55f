"""Recall over HTTP: answers, what is refused with which status, and a replica from its start."""

import json
import threading
from functools import partial

import pytest

from pipeline.process.clock import SystemClock
from pipeline.serving.http import ReplicaServer, serve
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.replica import Replica
from tests.support.world.front_thread import FrontThread
from tests.support.world.served_model import request
from tests.support.world.two_towers import USERS, TwoTowers

RECALL = "/v1/models/model:recall"
WITHIN_S = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = TwoTowers(tmp_path_factory.mktemp("towers"))
    world.commit()
    yield world
    world.trainer.close()


@pytest.fixture(scope="module")
def view(world):
    replica = Replica.for_predictions(world.project, world.trainer.log)
    replica.catch_up()
    return replica, ItemView(world.project, replica, world.trainer.log)


def served(world, replica, items):
    clock = SystemClock()
    return ReplicaServer(replica, world.project.config, clock, partial(FrontThread, clock), items=items)


def error_of(answer):
    status, content = answer
    return status, json.loads(content)["error"]


def test_recall_before_the_items_are_embedded_is_refused_until_later(world, view):
    replica, _ = view
    with served(world, replica, ItemView(world.project, replica, world.trainer.log)) as server:
        found = error_of(request(server, "POST", RECALL, {"instances": USERS}))
    assert found == (503, "the items of model model are not embedded yet")


def test_recall_without_items_is_unknown(world, view):
    with served(world, view[0], None) as server:
        found = error_of(request(server, "POST", RECALL, {"instances": USERS}))
    assert found == (404, "model model recalls no items. hint: declare [recall]")


def test_a_replica_of_one_tower_recalls_no_items(world, view):
    serving = world.project.config.serving.model_copy(update={"part": "user"})
    config, clock = world.project.config.model_copy(update={"serving": serving}), SystemClock()
    with ReplicaServer(view[0], config, clock, partial(FrontThread, clock)) as server:
        found = error_of(request(server, "POST", RECALL, {"instances": USERS}))
    assert found == (404, "part user of model model recalls no items. hint: serve the whole model")


def test_items_are_found_for_every_instance(world, view):
    replica, items = view
    items.refresh()
    with served(world, replica, items) as server:
        status, content = request(server, "POST", RECALL, {"instances": USERS, "k": 7})
        assert status == 200
        wanted = items.recall(USERS, 7)
        rows = [{"items": i, "scores": s} for i, s in zip(wanted.items, wanted.scores, strict=True)]
        assert json.loads(content) == {"recalled": rows, "version": "g0/s0-of-1/1"}
        _, content = request(server, "GET", "/metrics")
        assert 'springtide_recall_sequence{shard="0"} 1.0' in content.decode()
        assert "springtide_recall_queries_total" in content.decode()
        _, content = request(server, "POST", RECALL, {"instances": USERS[:1]})
        assert len(json.loads(content)["recalled"][0]["items"]) == 50


@pytest.mark.parametrize(
    ("method", "body", "status", "problem"),
    [
        ("GET", None, 405, "GET /v1/models/model:recall is not allowed. hint: use POST"),
        ("POST", {"k": 5}, 400, "body has no instances"),
        ("POST", {"instances": USERS, "k": 0}, 400, "k: got 0, wanted an integer in 1..1000. hint: recall.max_k"),
        ("POST", {"instances": USERS, "k": 1_001}, 400, "k: got 1001, wanted an integer in 1..1000"),
        ("POST", {"instances": USERS, "k": "7"}, 400, "k: got '7', wanted an integer in 1..1000"),
        ("POST", {"instances": USERS, "k": True}, 400, "k: got True, wanted an integer in 1..1000"),
        ("POST", {"instances": [{}] * 65}, 413, "request has 65 instances, at most 64 are accepted in recall"),
        ("POST", {"instances": [{"usr": 1}]}, 400, "instance 0 has column usr"),
        (
            "POST",
            {"instances": [USERS[0], {}]},
            400,
            "instance 1 has no column that the user tower reads. hint: it reads user",
        ),
        (
            "POST",
            {"instances": [{"price": 1.5, "user": None}]},
            400,
            "instance 0 has no column that the user tower reads",
        ),
        (
            "POST",
            {"instances": USERS, "filters": {}, "K": 3},
            400,
            "has 'filters', 'K'. known: instances, k, filter, exclude",
        ),
        ("POST", b"{", 400, "is not json"),
        ("POST", b" " * 70_000, 413, "body has 70000 bytes, at most 65536 are accepted"),
    ],
)
def test_wrong_requests_are_refused_with_their_reason(world, view, method, body, status, problem):
    replica, items = view
    items.refresh()
    with served(world, replica, items) as server:
        found, text = error_of(request(server, method, RECALL, body))
    assert found == status
    assert problem in text


def test_a_replica_embeds_its_items_and_follows_versions(world):
    stop, listening, ports = threading.Event(), threading.Event(), []

    def on_listening(port, ready):
        ports.append(port)
        listening.set()

    running = threading.Thread(target=serve, args=(world.project, world.trainer.log, stop, on_listening))
    running.start()
    try:
        assert listening.wait(WITHIN_S)
        assert recalled_version(ports[0], "g0/s0-of-1/1")
        world.commit()
        assert recalled_version(ports[0], "g0/s0-of-1/2")
    finally:
        stop.set()
        running.join()


@pytest.mark.parametrize("wrong", ["{", None])
def test_a_replica_with_a_wrong_file_of_items_predicts_and_recalls_once_it_is_right(tmp_path, wrong):
    world = TwoTowers(tmp_path, recall={"items": "items.jsonl", "refresh_s": 0.05})
    path, right = tmp_path / "items.jsonl", (tmp_path / "items.jsonl").read_text()
    path.unlink() if wrong is None else path.write_text(wrong)
    world.commit()
    stop, listening, ports = threading.Event(), threading.Event(), []
    running = threading.Thread(
        target=serve,
        args=(world.project, world.trainer.log, stop, lambda *found: (ports.append(found[0]), listening.set())),
    )
    running.start()
    try:
        assert listening.wait(WITHIN_S)
        at = _At(ports[0])
        assert request(at, "POST", "/v1/models/model:predict", {"instances": USERS})[0] == 200
        status, problem = error_of(request(at, "POST", RECALL, {"instances": USERS}))
        assert status == 503
        assert "the items of model model cannot be read: items" in problem
        assert "springtide_recall_file_unreadable 1.0" in request(at, "GET", "/metrics")[1].decode()
        (tmp_path / "right").write_text(right)
        (tmp_path / "right").replace(path)
        assert recalled_version(ports[0], "g0/s0-of-1/1")
        assert "springtide_recall_file_unreadable 0.0" in request(at, "GET", "/metrics")[1].decode()
    finally:
        stop.set()
        running.join()
        world.trainer.close()


class _At:
    """A server by its port, for `request`."""

    def __init__(self, port):
        self.port = port


def recalled_version(port, wanted):
    """Whether recall answers by the version `wanted` within the time."""
    clock = SystemClock()
    until_s = clock.monotonic_s() + WITHIN_S
    while clock.monotonic_s() < until_s:
        status, content = request(_At(port), "POST", RECALL, {"instances": USERS})
        if status == 200 and json.loads(content)["version"] == wanted:
            return True
        clock.wait(0.02)
    return False
