"""Lanes: bounded queues, deadlines, and threads that are stuck."""

import asyncio
import threading

import pytest

from pipeline.serving.rest.lane import Lane
from pipeline.serving.rest.response import Refusal, Response
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


def test_work_beyond_the_queue_is_refused_at_once():
    async def fill():
        lane, gate = Lane("x", 1, 1, ManualClock()), Gate()
        running = [asyncio.create_task(lane.run(gate, WITHIN_S)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await lane.run(gate, WITHIN_S)
        gate.opened.set()
        assert await asyncio.gather(*running) == [DONE, DONE]
        assert await lane.run(gate, WITHIN_S) == DONE
        lane.close()
        return refused.value.response

    response = asyncio.run(fill())
    assert response.status == 503
    assert ("retry-after", "1") in response.headers


def test_work_past_its_deadline_is_skipped():
    async def late():
        lane, gate, calls = Lane("x", 1, 9, ManualClock()), Gate(), []
        first = asyncio.create_task(lane.run(gate, WITHIN_S))
        await asyncio.to_thread(gate.started.wait, WITHIN_S)
        with pytest.raises(Refusal) as refused:
            await lane.run(lambda: calls.append(1), 0.01)
        gate.opened.set()
        await first
        await lane.run(lambda: DONE, WITHIN_S)
        lane.close()
        return refused.value.response.status, calls

    assert asyncio.run(late()) == (504, [])


def test_a_lane_is_stuck_once_every_thread_is():
    async def stuck():
        clock = ManualClock()
        lane, gates = Lane("x", 2, 9, clock), (Gate(), Gate())
        first = asyncio.create_task(lane.run(gates[0], WITHIN_S))
        await asyncio.to_thread(gates[0].started.wait, WITHIN_S)
        clock.wait(11)
        one = lane.stuck(10)
        second = asyncio.create_task(lane.run(gates[1], WITHIN_S))
        await asyncio.to_thread(gates[1].started.wait, WITHIN_S)
        young = lane.stuck(10)
        clock.wait(11)
        both = lane.stuck(10)
        for gate in gates:
            gate.opened.set()
        await asyncio.gather(first, second)
        lane.close()
        return one, young, both

    assert asyncio.run(stuck()) == (False, False, True)


def test_a_lane_becomes_idle():
    async def idle():
        lane, gate = Lane("x", 1, 9, ManualClock()), Gate()
        running = asyncio.create_task(lane.run(gate, WITHIN_S))
        await asyncio.to_thread(gate.started.wait, WITHIN_S)
        waiting = asyncio.create_task(asyncio.to_thread(lane.wait_until_idle, WITHIN_S))
        gate.opened.set()
        await asyncio.gather(running, waiting)
        lane.close()

    asyncio.run(idle())


def test_a_lane_with_a_share_pauses_in_proportion_to_its_work():
    async def work():
        clock = ManualClock()
        lane = Lane("x", 1, 9, clock, share=0.2)

        def last_100_ms():
            clock.wait(0.1)
            return DONE

        await asyncio.gather(*(lane.run(last_100_ms, WITHIN_S) for _ in range(3)))
        lane.close()
        return clock.monotonic_s()

    assert asyncio.run(work()) >= 3 * 0.1 + 2 * 0.4
