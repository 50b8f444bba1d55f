"""Lanes: bounded queues, deadlines, and threads that are stuck."""

import threading
from queue import SimpleQueue

import pytest

from pipeline.serving.link.response import Refusal, Response
from pipeline.serving.rest.lane import Lane
from tests.support.manual_clock import ManualClock

DONE = Response(200, "text/plain", b"done")
WITHIN_S = 20.0


class Gate:
    """Work that waits until it is opened."""

    def __init__(self):
        self.started, self.opened = threading.Event(), threading.Event()

    def __call__(self):
        self.started.set()
        self.opened.wait(WITHIN_S)
        return DONE


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def responses():
    return SimpleQueue()


def test_work_beyond_the_queue_is_refused_at_once(clock, responses):
    lane, gate = Lane("x", 1, 1, clock), Gate()
    for _ in range(2):
        lane.submit(gate, responses.put, WITHIN_S)
    with pytest.raises(Refusal) as refused:
        lane.submit(gate, responses.put, WITHIN_S)
    gate.opened.set()
    assert [responses.get(timeout=WITHIN_S) for _ in range(2)] == [DONE, DONE]
    lane.wait_until_idle(WITHIN_S)
    lane.submit(gate, responses.put, WITHIN_S)
    assert responses.get(timeout=WITHIN_S) == DONE
    lane.close()
    assert refused.value.response.status == 503
    assert ("retry-after", "1") in refused.value.response.headers


@pytest.mark.parametrize(("deadline_s", "begun"), [(2.0, []), (2.1, [1])])
def test_work_past_its_deadline_is_skipped(clock, responses, deadline_s, begun):
    lane, gate, calls = Lane("x", 1, 9, clock), Gate(), []

    def late():
        calls.append(1)
        return DONE

    lane.submit(gate, responses.put, WITHIN_S)
    assert gate.started.wait(WITHIN_S)
    lane.submit(late, responses.put, deadline_s)
    clock.wait(2.0)
    gate.opened.set()
    lane.wait_until_idle(WITHIN_S)
    lane.close()
    assert calls == begun
    assert responses.qsize() == 1 + len(begun)


def test_a_lane_is_stuck_once_every_thread_is(clock, responses):
    lane, gates = Lane("x", 2, 9, clock), (Gate(), Gate())
    lane.submit(gates[0], responses.put, WITHIN_S)
    assert gates[0].started.wait(WITHIN_S)
    clock.wait(11)
    one = lane.stuck(10)
    lane.submit(gates[1], responses.put, WITHIN_S)
    assert gates[1].started.wait(WITHIN_S)
    young = lane.stuck(10)
    clock.wait(11)
    both = lane.stuck(10)
    for gate in gates:
        gate.opened.set()
    lane.wait_until_idle(WITHIN_S)
    lane.close()
    assert (one, young, both) == (False, False, True)


def test_a_lane_with_a_share_pauses_in_proportion_to_its_work(clock, responses):
    lane = Lane("x", 1, 9, clock, share=0.2)

    def last_100_ms():
        clock.wait(0.1)
        return DONE

    for _ in range(3):
        lane.submit(last_100_ms, responses.put, WITHIN_S)
    for _ in range(3):
        responses.get(timeout=WITHIN_S)
    lane.close()
    assert clock.monotonic_s() >= 3 * 0.1 + 2 * 0.4
