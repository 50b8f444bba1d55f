"""What the torture decides before anything runs: whom it kills when, and which events it produces."""

from itertools import islice

import pandas as pd
import pytest

from tests.torture.load import ticks
from tests.torture.schedule import VICTIMS, plan_kills
from tests.torture.verdict import compare


def test_the_schedule_is_a_function_of_the_seed():
    assert list(plan_kills(50, 1)) == list(plan_kills(50, 1))
    assert list(plan_kills(50, 1)) != list(plan_kills(50, 2))


def test_of_every_six_kills_each_victim_is_one():
    victims = [kill.victim for kill in plan_kills(30, 5)]
    assert all(sorted(victims[at : at + 6]) == sorted(VICTIMS) for at in range(0, 30, 6))


def test_a_longer_schedule_begins_as_a_shorter_one():
    assert list(plan_kills(20, 3))[:7] == list(plan_kills(7, 3))


def test_the_first_kill_waits_and_some_later_ones_do_not():
    hasty = [kill.hasty for kill in plan_kills(200, 4)]
    assert not hasty[0]
    assert 20 < sum(hasty) < 80


def test_ticks_are_the_same_events_for_the_same_seed():
    one, two = (list(islice(ticks(7, 500), 130)) for _ in range(2))
    assert all(a[0].equals(b[0]) and a[1].equals(b[1]) for a, b in zip(one, two, strict=True))
    assert len({value for shown, _ in one for value in shown.column("id").to_pylist()}) > 120 * 400


@pytest.mark.parametrize(
    ("ids", "labels", "wanted"),
    [
        ([1, 2, 3], [0, 1, 0], (0, 0, 0)),
        ([3, 2, 1], [0, 1, 0], (0, 0, 0)),
        ([1, 2], [0, 1], (1, 0, 0)),
        ([1, 2, 2, 3], [0, 1, 1, 0], (0, 1, 0)),
        ([1, 2, 3, 4], [0, 1, 0, 0], (0, 1, 0)),
        ([1, 2, 3], [0, 1, 1], (0, 0, 1)),
    ],
    ids=["same", "other order", "lost", "twice", "never was", "differs"],
)
def test_what_was_lost_doubled_or_differs_is_counted(ids, labels, wanted):
    calm = pd.DataFrame({"id": [1, 2, 3], "label": [0, 1, 0]})
    found = compare(pd.DataFrame({"id": ids, "label": labels}), calm, ["id"])
    assert (found["lost"], found["doubled"], found["differing"]) == wanted
