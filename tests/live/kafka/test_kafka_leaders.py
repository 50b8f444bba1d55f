"""Changes of a partition's leader and of its epoch: both ways of reading, and appending, continue."""

import threading
from dataclasses import replace

import pytest
from kafka import KafkaAdminClient

from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.kafka.settings import KafkaSettings
from tests.live.everything import everything
from tests.live.own_broker import OwnBroker
from tests.support.command.ports import free_port_range

TIMEOUT_S = 120.0
"""A broker starts in 5 s, on a busy machine in half a minute."""
WAIT = ReadLimits(records=50, wait_ms=200)


def leader_of(bootstrap, topic, partition):
    """Node and epoch of a partition's leader, from the metadata of the cluster."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        (found,) = admin.describe_topics([topic])
        (row,) = [row for row in found["partitions"] if row["partition_index"] == partition]
        return row["leader_id"], row["leader_epoch"]
    finally:
        admin.close()


class Reading(threading.Thread):
    """Reads a partition from its begin until it has read `count` records."""

    def __init__(self, count, read):
        super().__init__(daemon=True)
        self.found, self._count, self._read = [], count, read
        self.start()

    def run(self):
        at = 0
        while len(self.found) < self._count:
            records, at = self._read(at)
            self.found += [r.value for r in records]


def append_and_read_during(log, topic, partition, change):
    """Append and read in both ways without a pause, while `change` runs."""
    wanted, fence = [b"%d" % n for n in range(120)], log.acquire_fence(topic, partition)

    def read_records(at):
        records = log.read(topic, partition, at, WAIT)
        return records, records[-1].offset + 1 if records else at

    def read_run(at):
        run = log.read_run(topic, partition, at, WAIT)
        return list(run), run.next_offset

    readings = [Reading(len(wanted), read) for read in (read_records, read_run)]
    changing = threading.Thread(target=change)
    for n, value in enumerate(wanted):
        if n == len(wanted) // 4:
            changing.start()
        log.append(topic, partition, [value], fence=fence if n % 2 else None)
        if n > len(wanted) // 4 and changing.is_alive():
            changing.join(0.05)
    changing.join()
    for reading in readings:
        reading.join(TIMEOUT_S)
        assert reading.found == wanted
    assert [r.value for r in everything(log, topic, partition)] == wanted


def test_reads_and_appends_continue_when_the_leader_restarts_with_a_new_epoch(broker, settings, clock):
    log = KafkaLog(replace(settings, retry_timeout_s=TIMEOUT_S), clock)
    log.create_topic("t", 2)
    before = leader_of(broker.bootstrap, settings.prefix + "t", 0)

    def restart():
        broker.kill("kafka")
        broker.start("kafka")

    append_and_read_during(log, "t", 0, restart)
    node, epoch = leader_of(broker.bootstrap, settings.prefix + "t", 0)
    assert node == before[0]
    assert epoch > before[1]
    log.close()


@pytest.fixture
def pair(tmp_path):
    """Two brokers; the first is also the controller and has the internal topics of the cluster."""
    port = free_port_range(3)
    first, second = OwnBroker(tmp_path / "first", port), OwnBroker(tmp_path / "second", port + 2)
    try:
        first.start({})
        yield first, second
    finally:
        for broker in (second, first):
            broker.kill()


def join_cluster(second, first):
    """Start `second` as a broker of the cluster that `first` controls."""
    if not second.data.exists():
        second.data.mkdir(parents=True)
        lines = (first.data / "meta.properties").read_text().splitlines()
        cluster = next(line for line in lines if line.startswith("cluster.id="))
        (second.data / "meta.properties").write_text(f"version=1\nnode.id=2\n{cluster}\n")
    where = f"PLAINTEXT://{second.bootstrap}"
    more = {"process.roles": "broker", "node.id": 2, "controller.quorum.voters": f"1@127.0.0.1:{first.port + 1}"}
    second.start({**more, "listeners": where, "advertised.listeners": where})


def test_reads_and_appends_continue_when_a_replica_replaces_a_killed_leader(pair, clock):
    first, second = pair
    alone = KafkaLog(KafkaSettings(first.bootstrap), clock)
    alone.create_topic("before", 1)
    alone.acquire_fence("before", 0)
    alone.close()
    join_cluster(second, first)
    both = f"{second.bootstrap},{first.bootstrap}"
    log = KafkaLog(KafkaSettings(both, replication_factor=2, retry_timeout_s=TIMEOUT_S), clock)
    log.create_topic("t", 2)
    (partition,) = [p for p in range(2) if leader_of(first.bootstrap, "t", p)[0] == 2]
    append_and_read_during(log, "t", partition, second.kill)
    assert leader_of(first.bootstrap, "t", partition)[0] == 1
    log.close()
