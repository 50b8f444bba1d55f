"""Limits of the brokers: quotas of readers, and the expiration of the producer ids of idle writers."""

import os
import subprocess

import pytest

from pipeline.cluster.java.jars import resolve_jars
from pipeline.cluster.java.programs import java_command
from pipeline.configuration.environment import cache_folder
from pipeline.errors import LogError
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.kafka.settings import KafkaSettings
from tests.live.own_broker import own_broker

EXPIRES_AFTER_MS = 1_000
TIMEOUT_S = 60.0


@pytest.fixture
def strict(tmp_path):
    """A broker that expires the producer ids of idle writers within seconds."""
    settings = {
        "transactional.id.expiration.ms": EXPIRES_AFTER_MS,
        "transaction.remove.expired.transaction.cleanup.interval.ms": EXPIRES_AFTER_MS,
    }
    with own_broker(tmp_path, settings) as broker:
        yield broker


@pytest.fixture
def log(strict, clock):
    made = KafkaLog(KafkaSettings(strict.bootstrap, retry_timeout_s=30.0), clock)
    made.create_topic("t", 1)
    yield made
    made.close()


def limit_readers(broker, bytes_per_s):
    """Set a quota as an administrator of the cluster does."""
    configs = [
        "kafka.admin.ConfigCommand",
        "--bootstrap-server",
        broker.bootstrap,
        "--alter",
        "--entity-type",
        "clients",
    ]
    quota = ["--entity-default", "--add-config", f"consumer_byte_rate={bytes_per_s}"]
    jars = resolve_jars("kafka", {}, cache_folder())
    subprocess.run(java_command(jars, broker.folder, [], [*configs, *quota]), check=True, capture_output=True)


def test_a_reader_above_its_quota_is_throttled_and_loses_no_record(log, strict, clock):
    wanted = [os.urandom(200_000) for _ in range(160)]
    for value in wanted:
        log.append("t", 0, [value])
    limit_readers(strict, 2_000_000)
    began_s, found, at = clock.monotonic_s(), [], 0
    while len(found) < len(wanted):
        run = log.read_run("t", 0, at, ReadLimits(records=3, wait_ms=200))
        found += [r.value for r in run]
        at = run.next_offset
        assert clock.monotonic_s() < began_s + TIMEOUT_S
    assert found == wanted


def test_an_expired_producer_id_is_an_error_and_the_next_writer_appends(log, clock):
    fence = log.acquire_fence("t", 0)
    log.append("t", 0, [b"before"], fence=fence)
    clock.wait(8 * EXPIRES_AFTER_MS / 1_000)
    with pytest.raises(LogError, match=r"producer id of the writer of t/0 has expired: .*; nothing was written now"):
        log.append("t", 0, [b"never"], fence=fence)
    log.append("t", 0, [b"after"], fence=log.acquire_fence("t", 0))
    assert [r.value for r in log.read("t", 0, 0)] == [b"before", b"after"]
