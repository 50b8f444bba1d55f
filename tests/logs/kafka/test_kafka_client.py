"""Kafka's clients where no broker is, or one that says nothing: calls end in time and leave nothing behind."""

import gc
import logging
import os
import socket
import threading

import pytest

from pipeline.errors import LogError
from pipeline.logs.kafka import client as kafka_client
from pipeline.logs.kafka.reader import KafkaReader
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.logs.kafka.topics import KafkaTopics
from pipeline.logs.kafka.writer import KafkaWriter
from pipeline.logs.log import ReadLimits
from pipeline.process.clock import SystemClock
from tests.support.ports import free_port_range


def read(settings):
    KafkaReader(settings, SystemClock(), "t", 0).read(0, ReadLimits(), lambda: 0)


def look(settings):
    KafkaTopics(settings, SystemClock())


def write(settings):
    KafkaWriter(settings, SystemClock())


def held():
    """Files and threads of this process, without what only waits for the collector."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.fixture(autouse=True)
def _unheard(caplog):
    """What pytest keeps of the client's talk keeps its sockets, too."""
    caplog.set_level(logging.CRITICAL + 1, "kafka")


@pytest.mark.parametrize("start", [read, look, write])
def test_clients_that_do_not_start_leave_no_thread_and_no_file(start):
    settings = KafkaSettings(f"127.0.0.1:{free_port_range(1)}", retry_timeout_s=0.3)
    with pytest.raises(LogError, match="retried for"):
        start(settings)
    before = held()
    for _ in range(3):
        with pytest.raises(LogError, match="retried for"):
            start(settings)
    assert held() == before


@pytest.mark.parametrize("start", [read, look])
def test_a_broker_that_does_not_answer_to_tls_is_given_up(start, monkeypatch):
    monkeypatch.setattr(kafka_client, "_HANDSHAKE_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = KafkaSettings(address, security={"security_protocol": "SSL"}, retry_timeout_s=1.0)
        failures = []

        def ask():
            try:
                start(settings)
            except LogError as failure:
                failures.append(str(failure))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(30)
        assert not asking.is_alive()
    assert "retried for" in failures[0]


def test_what_came_together_with_the_end_of_a_connection_is_heard_before_the_end():
    ours, broker = socket.socketpair()
    with ours, broker:
        ours.setblocking(False)
        transport = kafka_client.TcpTransport(None, ours)
        broker.sendall(b"no")
        broker.close()
        assert transport._sock_recv() == (b"no", None)
        received, failure = transport._sock_recv()
        assert received == b""
        assert "disconnected" in str(failure)
