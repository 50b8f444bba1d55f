"""The cluster itself: a real broker and a real Flink, each killed with `kill -9` and started again by `up`."""

import os
from pathlib import Path

import psutil
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from pipeline.cluster.cluster import LocalCluster
from pipeline.cluster.flink import read_flink
from pipeline.cluster.java.jars import resolve_jars
from pipeline.cluster.process import descendants
from pipeline.cluster.status import cluster_status
from pipeline.configuration.deployment.services import Cluster
from pipeline.process.clock import SystemClock
from tests.support.command.ports import free_port_range

TIMEOUT_MS = 20_000


def append_in_transaction(cluster, topic, value):
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    with KafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=topic) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, value)
        producer.commit_transaction()


def first_value(cluster, topic):
    reader = KafkaConsumer(
        topic,
        bootstrap_servers=cluster.bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        consumer_timeout_ms=TIMEOUT_MS,
    )
    try:
        return next(reader).value
    finally:
        reader.close()


def slots(cluster):
    return read_flink(cluster.settings.flink_rest_port, "/overview")["slots-total"]


def test_a_committed_record_survives_a_kill_of_the_broker(cluster):
    append_in_transaction(cluster, "outlives", b"here")
    assert first_value(cluster, "outlives") == b"here"
    before = cluster.running()["kafka"]
    cluster.kill("kafka")
    assert "kafka" not in cluster.running()
    assert cluster.up() == ["kafka"]
    assert cluster.running()["kafka"].pid != before.pid
    assert first_value(cluster, "outlives") == b"here"


def test_a_killed_taskmanager_is_restarted_with_its_slots(cluster):
    assert slots(cluster) == 2
    cluster.kill("taskmanager-1")
    assert not cluster.ready("taskmanager-1")
    assert cluster.up() == ["taskmanager-1"]
    assert slots(cluster) == 2


def test_taskmanagers_register_again_with_a_restarted_jobmanager(cluster):
    cluster.kill("jobmanager")
    assert cluster.up() == ["jobmanager"]
    assert slots(cluster) == 2


def test_up_on_a_cluster_that_is_up_starts_nothing(cluster):
    before = cluster.running()
    assert cluster.up() == []
    assert cluster.running() == before


def test_status_lists_every_process_with_its_port_and_log(cluster):
    status = cluster_status(cluster, SystemClock())
    assert status["up"]
    assert [row["name"] for row in status["processes"]] == ["kafka", "jobmanager", "taskmanager-1"]
    assert {row["state"] for row in status["processes"]} == {"running"}
    assert all(row["pid"] and row["port"] and Path(row["log"]).stat().st_size for row in status["processes"])
    assert status["flink"]["slots"] == status["flink"]["free_slots"] == 2
    assert status["flink"]["jobs"] == []


def test_everything_listens_on_the_loopback_address_alone(cluster):
    pids = {found.pid for found in cluster.running().values()}
    listening = {address for pid in pids for address in addresses_listened_on(pid)}
    assert listening == {"127.0.0.1"}


def test_down_leaves_data_and_no_process(tmp_path):
    first = free_port_range(2)
    one = LocalCluster(Cluster(kafka_port=first, kafka_controller_port=first + 1), tmp_path / "one")
    try:
        one.up(["kafka"])
        assert descendants(one.folder) == [one.running()["kafka"].pid]
        assert one.down() == ["kafka"]
        assert descendants(one.folder) == []
        assert sorted(os.listdir(one.folder)) == ["kafka", "logs"]
    finally:
        one.down(wipe=True)
    assert not one.folder.exists()


def addresses_listened_on(pid):
    """IPv4 and IPv6 addresses on which a process accepts connections."""
    sockets = psutil.Process(pid).net_connections("inet")
    return {s.laddr.ip.removeprefix("::ffff:") for s in sockets if s.status == psutil.CONN_LISTEN}


def test_all_jars_have_the_requested_version(tmp_path):
    folder = resolve_jars("flink", {"flink.version": "1.19.1"}, tmp_path)
    # Flink's reporter and its shaded libraries have other versions.
    names = {path.name for path in folder.glob("flink-*.jar")}
    own = {name for name in names if not name.startswith(("flink-metrics-prometheus-", "flink-shaded-"))}
    assert len(own) > 10
    assert {name for name in own if not name.endswith("-1.19.1.jar")} == set()
