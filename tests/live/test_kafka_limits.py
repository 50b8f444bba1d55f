"""What brokers keep from their clients: bytes beyond a quota, and the names of writers that are long silent."""

import os
import subprocess

import pytest

from pipeline.cluster.jars import resolve_jars
from pipeline.cluster.java import java_command
from pipeline.configuration.environment import cache_folder
from pipeline.errors import LogError
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.logs.log import ReadLimits
from tests.live.own_broker import own_broker

FORGETS_AFTER_MS = 1_000
WITHIN_S = 60.0


@pytest.fixture
def strict(tmp_path):
    """A broker that forgets silent writers within seconds."""
    forgetting = {
        "transactional.id.expiration.ms": FORGETS_AFTER_MS,
        "transaction.remove.expired.transaction.cleanup.interval.ms": FORGETS_AFTER_MS,
    }
    with own_broker(tmp_path, forgetting) as made:
        yield made


@pytest.fixture
def log(strict, clock):
    made = KafkaLog(KafkaSettings(strict.bootstrap, retry_timeout_s=30.0), clock)
    made.create_topic("t", 1)
    yield made
    made.close()


def limit_readers(broker, bytes_per_s):
    """What an administrator of the cluster types."""
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


def test_a_reader_beyond_its_quota_is_slowed_down_and_loses_nothing(log, strict, clock):
    wanted = [os.urandom(200_000) for _ in range(160)]
    for value in wanted:
        log.append("t", 0, [value])
    limit_readers(strict, 2_000_000)
    began_s, found, at = clock.monotonic_s(), [], 0
    while len(found) < len(wanted):
        run = log.read_run("t", 0, at, ReadLimits(records=3, wait_ms=200))
        found += [r.value for r in run]
        at = run.next_offset
        assert clock.monotonic_s() < began_s + WITHIN_S
    assert found == wanted


def test_a_writer_that_the_cluster_has_forgotten_says_so_and_the_next_goes_on(log, clock):
    fence = log.acquire_fence("t", 0)
    log.append("t", 0, [b"before"], fence=fence)
    clock.wait(8 * FORGETS_AFTER_MS / 1_000)
    with pytest.raises(LogError, match=r"producer id of the writer of t/0 has expired: .*; nothing was written now"):
        log.append("t", 0, [b"never"], fence=fence)
    log.append("t", 0, [b"after"], fence=log.acquire_fence("t", 0))
    assert [r.value for r in log.read("t", 0, 0)] == [b"before", b"after"]
