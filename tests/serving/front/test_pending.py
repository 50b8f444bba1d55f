"""Connections without a complete head, over real sockets: what is handed over, closed, and read at once."""

import asyncio
import socket
import struct
from multiprocessing.connection import wait

import pytest

from pipeline.serving.front.counts import Counts
from pipeline.serving.front.pending import PendingConnections
from tests.support.manual_clock import ManualClock

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WITHIN_S = 20


class Room:
    """Pending connections of a listening socket, and the clients that have connected."""

    def __init__(self):
        self.clock = ManualClock()
        self.pending = PendingConnections(100, Counts(), self.clock)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.clients = []

    def connect(self, sent=b""):
        """A client that has sent `sent`, and what the server serves of it at once."""
        client = socket.create_connection(self.listening.getsockname(), timeout=WITHIN_S)
        self.clients.append(client)
        client.sendall(sent)
        accepted, _ = self.listening.accept()
        received = b""
        while len(received) < len(sent):  # the bytes have arrived
            received = accepted.recv(1_000, socket.MSG_PEEK)
        accepted.setblocking(False)
        found = self.pending.add(accepted)
        if found is not None:
            accepted.close()
        return client, found

    def close(self):
        self.pending.close()
        self.listening.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def room():
    made = Room()
    yield made
    made.close()


def answer(client):
    parts = []
    while part := client.recv(1_000):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "sent",
    [
        HEAD,
        HEAD + b"more",
        b"GET / HTTP/1.1\n\n",
        b"GET / HTTP/1.1\r\na: b\n\r\n",
        b"\x16\x03\x01",
        b"\r\n",
        b"G" * 100,
    ],
)
def test_a_head_that_is_complete_or_cannot_become_one_is_served_at_once(room, sent):
    assert room.connect(sent)[1] == sent
    assert len(room.pending) == 0


@pytest.mark.parametrize("sent", [b"", b"G", HEAD[:-1], HEAD[:-2], b"G" * 99])
def test_a_connection_waits_until_its_head_is_complete(room, sent):
    client, found = room.connect(sent)
    assert found is None
    assert len(room.pending) == 1
    assert room.pending.read() == []
    client.sendall(b"\r\n\r\n")
    served = []
    while not served:
        served = room.pending.read()
    [(connection, received)] = served
    assert received == (sent + b"\r\n\r\n")[:100]
    assert len(room.pending) == 0
    connection.close()


def test_a_head_is_complete_however_it_is_cut(room):
    client, _ = room.connect()
    for byte in HEAD:
        assert len(room.pending) == 1
        client.sendall(bytes([byte]))
        served = read_something(room)
    assert served[0][1] == HEAD
    served[0][0].close()


def read_something(room):
    """What is served after the bytes sent have arrived."""
    wait([room.pending], WITHIN_S)
    return room.pending.read()


def test_of_many_that_have_sent_bytes_a_few_are_read_at_once(room):
    clients = [room.connect()[0] for _ in range(100)]
    for client in clients:
        client.sendall(HEAD)
    first = read_something(room)
    assert 0 < len(first) <= 64
    served = list(first)
    while len(served) < 100:
        served += read_something(room)
    for connection, received in served:
        assert received == HEAD
        connection.close()


def test_the_connection_accepted_first_is_evicted_first_and_refused_only_if_it_has_sent_something(room):
    silent, _ = room.connect()
    half, _ = room.connect(b"GET /")
    last, _ = room.connect()
    room.pending.evict_longest()
    assert answer(silent) == b""
    room.pending.evict_longest()
    assert answer(half).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert len(room.pending) == 1
    last.sendall(HEAD)
    [(connection, _)] = read_something(room)
    connection.close()


def test_a_connection_is_closed_after_its_time_counted_from_its_first_byte(room):
    silent, _ = room.connect()
    half, _ = room.connect()
    room.clock.wait(8)
    half.sendall(b"GET /")
    assert read_something(room) == []
    room.clock.wait(8)
    asyncio.run(room.pending.close_overdue(10))
    assert answer(silent) == b""
    assert len(room.pending) == 1
    room.clock.wait(3)
    asyncio.run(room.pending.close_overdue(10))
    assert answer(half).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert len(room.pending) == 0


def test_a_client_that_ends_without_a_byte_is_forgotten_and_one_within_a_head_is_served(room):
    silent, _ = room.connect()
    half, _ = room.connect(b"GET /")
    silent.close()
    assert read_something(room) == []
    assert len(room.pending) == 1
    half.shutdown(socket.SHUT_WR)
    [(connection, received)] = read_something(room)
    assert received == b"GET /"
    connection.close()


def test_a_client_that_resets_its_connection_is_forgotten(room):
    client, _ = room.connect(b"GET /")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert read_something(room) == []
    assert len(room.pending) == 0
