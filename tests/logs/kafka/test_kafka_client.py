"""Kafka clients without a broker, or with one that sends nothing: calls time out and release all resources."""

import gc
import logging
import os
import socket
import threading

import pytest

from pipeline.errors import LogError
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.kafka import client as kafka_client
from pipeline.logs.kafka.reader import KafkaReader
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.logs.kafka.topics import KafkaTopics
from pipeline.logs.kafka.writer import KafkaWriter
from pipeline.process.clock import SystemClock
from tests.support.command.ports import free_port_range


def read(settings):
    KafkaReader(settings, SystemClock(), "t", 0).read(0, ReadLimits(), lambda: 0)


def look_up(settings):
    KafkaTopics(settings, SystemClock())


def write(settings):
    KafkaWriter(settings, SystemClock())


def resources():
    """Numbers of open files and threads of this process, after a garbage collection."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.fixture(autouse=True)
def _no_client_logs(caplog):
    """The log records that pytest captures would keep the client's sockets open."""
    caplog.set_level(logging.CRITICAL + 1, "kafka")


@pytest.mark.parametrize("start", [read, look_up, write])
def test_clients_that_do_not_start_leave_no_thread_and_no_file(start):
    settings = KafkaSettings(f"127.0.0.1:{free_port_range(1)}", retry_timeout_s=0.3)
    with pytest.raises(LogError, match="retried for"):
        start(settings)
    before = resources()
    for _ in range(3):
        with pytest.raises(LogError, match="retried for"):
            start(settings)
    assert resources() == before


@pytest.mark.parametrize("start", [read, look_up])
def test_a_tls_handshake_without_a_response_times_out(start, monkeypatch):
    monkeypatch.setattr(kafka_client, "_HANDSHAKE_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = KafkaSettings(address, security={"security_protocol": "SSL"}, retry_timeout_s=1.0)
        failures = []

        def call():
            try:
                start(settings)
            except LogError as failure:
                failures.append(str(failure))

        calling = threading.Thread(target=call, daemon=True)
        calling.start()
        calling.join(30)
        assert not calling.is_alive()
    assert "retried for" in failures[0]


def test_bytes_received_with_the_end_of_a_connection_are_returned_before_the_end():
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
