"""Accepting connections: a few at a time, and within a share of the loop's time."""

import asyncio
import socket
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from pipeline.serving.front.acceptor import AT_ONCE, accept_connections
from tests.support.manual_clock import ManualClock

TURNS = 20


@contextmanager
def waiting(count):
    """A listening socket with `count` connections that wait."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=count)
    clients = [socket.create_connection(listening.getsockname(), timeout=20) for _ in range(count)]
    yield listening
    for client in (listening, *clients):
        client.close()


def accepted_per_turn(listening, clock, costs_s):
    """How many connections are accepted in each of some turns of the loop if each takes `costs_s`."""

    async def turns():
        accepted, counts = [], []

        def accept(connection):
            accepted.append(connection)
            clock.wait(costs_s)

        accepting = asyncio.create_task(accept_connections(listening, accept, clock))
        for _ in range(TURNS):
            before = len(accepted)
            await asyncio.sleep(0)
            counts.append(len(accepted) - before)
        accepting.cancel()
        for connection in accepted:
            connection.close()
        return counts

    return asyncio.run(turns())


def test_a_socket_that_another_process_shuts_down_is_left():
    async def left(listening):
        accepting = asyncio.create_task(accept_connections(listening, accepted.append, ManualClock()))
        await asyncio.sleep(0)
        with listening.dup() as shared:
            shared.shutdown(socket.SHUT_RDWR)
        await asyncio.wait_for(accepting, 20)

    accepted = []
    with waiting(0) as listening, capture_logs() as logs:
        asyncio.run(left(listening))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listening.getsockname(), timeout=20)
    assert (accepted, logs) == ([], [])


def test_a_few_connections_are_accepted_in_each_turn_of_the_loop():
    count = 3 * AT_ONCE
    with waiting(count) as listening:
        counts = accepted_per_turn(listening, ManualClock(), 0.0)
    assert max(counts) == AT_ONCE
    assert sum(counts) == count


def test_accepting_pauses_in_proportion_to_the_time_it_takes():
    with waiting(3 * AT_ONCE) as listening:
        counts = accepted_per_turn(listening, ManualClock(), 10.0)
    assert sum(counts) == AT_ONCE
