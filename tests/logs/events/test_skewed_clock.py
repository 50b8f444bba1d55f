"""Producers with wrong clocks share partitions with one whose clock is right: the events of the latter are joined as
without them.

Here the allowed skew of a clock (`events.skew_s`) is larger than the allowed disorder of events (`disorder_s`).
"""

import random

import pytest

from tests.samples.run.test_samples_job import NOW, D, H, W, World
from tests.samples.run.test_stored_shards import join_all, pieces_of

SKEW_S = 60
EVENTS = 200
FAST, SLOW = 10_000, 20_000
"""First items of the producers whose clock is ahead and behind."""
STEP_MS = 300


def produce(world, *, ahead_ms=None, behind_ms=None):
    """Append the events of the right clock, with those of the wrong clocks between them; the log's clock advances.

    The events of the right clock are late by up to 0.9 of the disorder.
    """
    rng = random.Random(5)
    clock = world.project.clock
    for number in range(EVENTS):
        clock.wait(STEP_MS / 1000)
        now = clock.now_ms() - NOW
        shown = now - rng.randrange(int(0.9 * D))
        world.impression(shown, number)
        if rng.random() < 0.4:
            world.click(rng.randint(shown, now), number)
        for first, off_ms in ((FAST, ahead_ms), (SLOW, None if behind_ms is None else -behind_ms)):
            if off_ms is not None:
                world.impression(now + off_ms, first + number)
                world.click(now + off_ms, first + number)
    clock.wait((W + H + SKEW_S * 1000) / 1000)
    world.heartbeat(clock.now_ms() - NOW)


def in_process(world):
    world.run()


def live(world):
    join_all(world, pieces_of(world), random.Random(1))


def samples_of(world, first, last):
    return [(kind, item, at, clicked) for kind, item, at, clicked in world.samples() if first <= item < last]


def reasons_of(world):
    return {reason for reason, *_ in world.dead()}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """The samples of the right clock's events without other producers."""
    world = World(tmp_path_factory.mktemp("right"), skew_s=SKEW_S)
    produce(world)
    in_process(world)
    found = world.samples()
    assert (len({item for _, item, *_ in found}), world.dead()) == (EVENTS, [])
    assert {"positive", "negative"} <= {kind for kind, *_ in found}
    return found


@pytest.mark.parametrize("join", [in_process, live])
class TestEventsOfOtherProducersAreNotAffected:
    @pytest.mark.parametrize("ahead_ms", [D, SKEW_S * 1000])
    def test_by_a_clock_ahead_within_the_skew_whose_events_are_joined_too(self, tmp_path, wanted, join, ahead_ms):
        world = World(tmp_path, skew_s=SKEW_S)
        produce(world, ahead_ms=ahead_ms)
        join(world)
        assert samples_of(world, 0, FAST) == wanted
        assert [kind for kind, *_ in samples_of(world, FAST, SLOW)] == ["positive"] * EVENTS
        assert world.dead() == []

    @pytest.mark.parametrize("ahead_ms", [SKEW_S * 1000 + 1, 600_000])
    def test_by_a_clock_further_ahead_whose_events_are_set_aside(self, tmp_path, wanted, join, ahead_ms):
        world = World(tmp_path, skew_s=SKEW_S)
        produce(world, ahead_ms=ahead_ms)
        join(world)
        assert world.samples() == wanted
        assert (reasons_of(world), len(world.dead())) == ({"time_out_of_range"}, 2 * EVENTS)

    @pytest.mark.parametrize("behind_ms", [2 * D, 600_000])
    def test_by_a_clock_behind_whose_impressions_are_too_late(self, tmp_path, wanted, join, behind_ms):
        world = World(tmp_path, skew_s=SKEW_S)
        produce(world, behind_ms=behind_ms)
        join(world)
        assert samples_of(world, 0, FAST) == wanted
        # The first event of a partition is never late, so it is joined.
        assert len(samples_of(world, SLOW, 2 * SLOW)) <= 2 * world.config.logs.partitions
        assert "impression_too_late" in reasons_of(world)
