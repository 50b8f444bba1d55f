"""Answers while versions, rollbacks, kills and changes of items follow each other without a pause: both towers of an
answer are those of the version that it names.
"""

import json
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from pipeline.process.clock import SystemClock
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.replica import Replica
from tests.support.command.command_line import start
from tests.support.world.served_model import request
from tests.support.world.two_towers import ITEMS, USERS, TwoTowers, project_folder

RECALL = '[recall]\nitems = "items.jsonl"\ntopic = "items"\nrefresh_s = 0.01\n[serving]\nport = 0\n'
COMING = [{"item": 500 + i, "price": i / 7} for i in range(40)]
ALL = [*ITEMS, *COMING]
PLACES = {item["item"]: place for place, item in enumerate(ALL)}
PATH = "/v1/models/model:recall"
WITHIN_S = 60


class Flips(TwoTowers):
    """Versions with the same rows and other weights; the scores of every version by a replica of its own."""

    def __init__(self, root):
        recall = {"items": "items.jsonl", "topic": "items", "refresh_s": 0.01}
        super().__init__(project_folder(root, RECALL), recall=recall)
        self.items = ALL  # these have rows; the file has `ITEMS`
        self.commit()
        self.replica = Replica.for_predictions(self.project, self.trainer.log)
        self.scores = {}
        self.follow()

    def follow(self):
        """Serve the newest version, and compute the scores of all items from the predictions of the whole model."""
        self.replica.catch_up()
        users, items = (self.replica.predict(some)[0] for some in (USERS, ALL))
        dim = (users.shape[1] - 1) // 2
        self.scores[self.replica.version] = users[:, 1 : 1 + dim] @ items[:, 1 + dim :].T

    def publish(self):
        self.commit(rows=False)
        self.follow()

    def roll_back(self, to):
        self.trainer.log.create_topic("samples", 1)
        plan = plan_rollback(self.project, self.trainer.log, to=self.trainer.commits[to].id)
        roll_back(self.project, self.trainer.log, plan)
        self.follow()

    def mixed(self, answers):
        """How many of the answers, of items and scores for USERS and a version, differ from the version's scores."""
        return sum(not self._agree(*answer) for answer in answers)

    def _agree(self, items, scores, version):
        rows = self.scores[version]
        wanted = [[rows[user, PLACES[item]] for item in found] for user, found in enumerate(items)]
        return all(np.allclose(*pair, rtol=2e-3, atol=2e-3) for pair in zip(wanted, scores, strict=True))


@pytest.fixture
def flips(tmp_path):
    flips = Flips(tmp_path)
    yield flips
    flips.trainer.close()


@contextmanager
def asking(view, answers):
    """Inside, a thread recalls without a pause."""
    done = threading.Event()

    def ask():
        while not done.is_set():
            found = view.recall(USERS, 10)
            answers.append((found.items, found.scores, found.version))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_no_answer_mixes_towers_under_constant_flips_and_changes_of_items(flips):
    view, answers = ItemView(flips.project, flips.replica, flips.trainer.log), []
    view.refresh()
    with asking(view, answers):
        for item in COMING:
            flips.publish()
            flips.trainer.log.append("items", 0, [json.dumps(item).encode()])
            view.admit()
            view.refresh()
    assert len({version for _, _, version in answers}) > 30
    assert len(answers) > 100
    assert flips.mixed(answers) == 0
    assert {*view.recall(USERS, 1_000).items[0]} == {*PLACES}


def test_a_rollback_is_followed_without_a_mixed_answer(flips):
    view, answers = ItemView(flips.project, flips.replica, flips.trainer.log), []
    view.refresh()
    with asking(view, answers):
        for _ in range(6):
            flips.publish()
            view.refresh()
        flips.roll_back(2)
        view.refresh()
        found = view.recall(USERS, 10)
    assert flips.mixed(answers) == 0
    assert found.version.startswith("g1/")
    assert flips.mixed([(found.items, found.scores, found.version)]) == 0
    np.testing.assert_array_equal(flips.scores[found.version], flips.scores["g0/s0-of-1/3"])


def test_a_replica_killed_while_it_flips_gives_the_same_answers_again(flips):
    for _ in range(3):
        replica = start(flips.project.root, "replica")
        try:
            port = json.loads(replica.stdout.readline())["port"]
            answers = [answer_of(port, flips)]
            for _ in range(3):
                flips.publish()
                answers.append(answer_of(port, flips))
            flips.publish()
        finally:
            replica.kill()
            replica.communicate()
        assert flips.mixed(answers) == 0


class _At:
    """A server by its port, for `request`."""

    def __init__(self, port):
        self.port = port


def answer_of(port, flips):
    """The first answer by the newest version; every one before it is checked too."""
    clock = SystemClock()
    until_s = clock.monotonic_s() + WITHIN_S
    while clock.monotonic_s() < until_s:
        status, content = request(_At(port), "POST", PATH, {"instances": USERS, "k": 10})
        if status == 200:
            found = json.loads(content)
            rows = found["recalled"]
            answer = [row["items"] for row in rows], [row["scores"] for row in rows], found["version"]
            assert flips.mixed([answer]) == 0
            if found["version"] == flips.replica.version:
                return answer
        clock.wait(0.005)
    pytest.fail(f"version {flips.replica.version} is not used within {WITHIN_S} s")
