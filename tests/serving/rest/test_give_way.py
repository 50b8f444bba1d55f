"""Work that gives way to small requests waits for them, and gets its share of the time nevertheless."""

from pipeline.serving.rest.give_way import GiveWay
from tests.support.manual_clock import ManualClock


class NeverIdle:
    """A lane in which a request never ends."""

    def __init__(self, clock):
        self.clock, self.waits = clock, []

    def wait_until_idle(self, timeout_s):
        self.waits.append(timeout_s)
        self.clock.wait(timeout_s)


def test_a_wait_is_bounded_and_in_all_three_times_as_long_as_the_work():
    clock = ManualClock()
    lane = NeverIdle(clock)
    give_way = GiveWay(lane, clock)
    for _ in range(100):
        clock.wait(0.002)
        give_way()
    assert max(lane.waits) <= 0.05
    assert abs(sum(lane.waits) - 3 * 100 * 0.002) < 1e-9


def test_a_long_step_is_followed_by_one_short_wait():
    clock = ManualClock()
    lane = NeverIdle(clock)
    give_way = GiveWay(lane, clock)
    give_way()
    clock.wait(1.0)
    give_way()
    assert lane.waits == [0.05]
