"""The parts of the torture that need no cluster: the schedule of kills, the events, the comparison."""

from itertools import islice

import pandas as pd
import pytest

from tests.torture.load import ticks
from tests.torture.schedule import RARE, VICTIMS, plan_kills
from tests.torture.verdict import compare


def test_the_schedule_is_a_function_of_the_seed():
    assert list(plan_kills(50, 1)) == list(plan_kills(50, 1))
    assert list(plan_kills(50, 1)) != list(plan_kills(50, 2))


def test_each_victim_is_one_of_the_first_six_kills_and_of_every_seven_after_them_with_a_rare_one():
    victims = [kill.victim for kill in plan_kills(6 + 7 * len(RARE), 5)]
    assert sorted(victims[:6]) == sorted(VICTIMS)
    decks = [victims[at : at + 7] for at in range(6, len(victims), 7)]
    assert all(set(deck) > set(VICTIMS) for deck in decks)
    assert {victim for deck in decks for victim in deck if victim not in VICTIMS} == set(RARE)


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
    ids=["same", "other order", "lost", "twice", "surplus", "differs"],
)
def test_what_was_lost_doubled_or_differs_is_counted(ids, labels, wanted):
    reference = pd.DataFrame({"id": [1, 2, 3], "label": [0, 1, 0]})
    found = compare(pd.DataFrame({"id": ids, "label": labels}), reference, ["id"])
    assert (found["lost"], found["doubled"], found["differing"]) == wanted
