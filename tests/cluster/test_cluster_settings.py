"""The configuration of a cluster: Kafka and Flink settings, memory, ports, jars, and the plans of `up` and `down`."""

import socket
import zipfile

import pytest

from pipeline.cluster.flink import render_flink_conf, taskmanager_command
from pipeline.cluster.java.base_jar import write_base_jar
from pipeline.cluster.java.jars import jars_folder, resolve_jars
from pipeline.cluster.kafka import broker_ready, render_properties
from pipeline.cluster.memory import split_memory
from pipeline.cluster.plan import process_names, to_start, to_stop
from pipeline.cluster.ports import free_port, port_is_free
from pipeline.cluster.process import ProcessRecord
from pipeline.configuration.config import parse_config
from pipeline.configuration.deployment.services import Cluster
from pipeline.errors import ClusterError, ConfigError
from tests.support.command.ports import free_port_range

SMALLEST_MB = 768


def running(port):
    return ProcessRecord(pid=1, start_ticks=1, boot="", started_at_ms=0, port=port, log_bytes=0)


def pairs(text, separator):
    return dict(line.split(separator, 1) for line in text.splitlines())


def test_kafka_is_set_for_exactly_once_on_one_node(tmp_path):
    found = pairs(render_properties(Cluster(kafka_port=19092, message_max_bytes=200 << 20), tmp_path), "=")
    assert found["transaction.state.log.replication.factor"] == found["transaction.state.log.min.isr"] == "1"
    assert found["offsets.topic.replication.factor"] == "1"
    assert found["auto.create.topics.enable"] == "false"
    assert found["group.initial.rebalance.delay.ms"] == "0"
    assert found["log.dirs"] == str(tmp_path)
    assert found["listeners"] == "PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:9093"
    assert int(found["message.max.bytes"]) == 200 << 20 < int(found["socket.request.max.bytes"])


def test_flink_retains_checkpoints_and_restarts_without_end(tmp_path):
    settings = Cluster(flink_rest_port=18081, state_backend="rocksdb", taskmanagers=2, taskmanager_slots=3)
    found = pairs(render_flink_conf(settings, tmp_path / "flink", tmp_path / "tmp"), ": ")
    assert found["rest.port"] == "18081"
    assert found["web.submit.enable"] == "true"
    assert found["state.backend.type"] == "rocksdb"
    assert found["state.checkpoints.dir"] == f"file://{tmp_path}/flink/checkpoints"
    assert found["execution.checkpointing.externalized-checkpoint-retention"] == "RETAIN_ON_CANCELLATION"
    assert int(found["restart-strategy.fixed-delay.attempts"]) > 1_000_000
    assert found["parallelism.default"] == "6"
    addresses = {value for name, value in found.items() if name.endswith(("host", "address"))}
    assert addresses == {"127.0.0.1"}
    assert not any(name.startswith("metrics.") for name in found)


def test_metrics_are_exported_if_a_port_is_set(tmp_path):
    settings = Cluster(flink_metrics_port=19249)
    assert "PrometheusReporterFactory" in render_flink_conf(settings, tmp_path, tmp_path)
    assert "metrics.reporter.prom.port=19251" in taskmanager_command(settings, tmp_path, tmp_path, 2, 1)


@pytest.mark.parametrize("state_backend", ["hashmap", "rocksdb"])
@pytest.mark.parametrize("total_mb", [SMALLEST_MB, 1024, 1537, 8192])
def test_a_taskmanagers_parts_add_up_to_its_memory(total_mb, state_backend):
    memory = split_memory(total_mb, state_backend)
    assert memory.total == total_mb
    assert min(memory.task_heap, memory.managed) > 0
    sizes = {name: int(size.removesuffix("m")) for name, size in memory.settings().items()}
    ranges = {name for name in sizes if name.endswith(".max")}
    assert sum(size for name, size in sizes.items() if name not in ranges) == total_mb
    assert all(sizes[name] == sizes[name.removesuffix("max") + "min"] for name in ranges)


def test_rocksdb_gets_managed_memory_and_the_heap_what_it_does_not_need():
    assert split_memory(2048, "rocksdb").managed > split_memory(2048, "hashmap").managed
    assert split_memory(2048, "rocksdb").heap < split_memory(2048, "hashmap").heap


def test_a_taskmanager_below_the_smallest_size_is_refused():
    document = {"cluster": {"taskmanager_mb": SMALLEST_MB - 1, "colour": "red"}}
    with pytest.raises(ConfigError, match=r"cluster\.taskmanager_mb: .*768(.|\n)*cluster\.colour: unknown key"):
        parse_config(document)
    assert Cluster(taskmanager_mb=SMALLEST_MB).taskmanager_mb == SMALLEST_MB


def test_up_starts_what_is_absent_in_order():
    names = process_names(2)
    assert to_start(Cluster(taskmanagers=2), names, {}) == list(names)
    alive = {"kafka": running(9092), "taskmanager-1": running(40_001)}
    assert to_start(Cluster(taskmanagers=2), names, alive) == ["jobmanager", "taskmanager-2"]


def test_up_refuses_a_process_that_was_started_with_another_port():
    with pytest.raises(ClusterError, match="kafka runs on port 9092, configured is 9095"):
        to_start(Cluster(kafka_port=9095), ["kafka"], {"kafka": running(9092)})


def test_down_ends_the_broker_last():
    alive = {name: running(1) for name in ("kafka", "jobmanager", "taskmanager-1", "taskmanager-2")}
    assert to_stop(alive) == ["taskmanager-1", "taskmanager-2", "jobmanager", "kafka"]


def test_a_port_is_in_use_while_a_server_listens():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not port_is_free(listener.getsockname()[1])
        assert not broker_ready(free_port())
    first = free_port_range(5)
    assert all(port_is_free(port) for port in range(first, first + 5))


def test_other_versions_are_other_jars(tmp_path):
    usual = jars_folder("kafka", {}, tmp_path)
    assert usual != jars_folder("kafka", {"kafka.version": "4.1.2"}, tmp_path) != jars_folder("flink", {}, tmp_path)
    usual.mkdir(parents=True)
    assert resolve_jars("kafka", {}, tmp_path) == usual


def test_a_version_of_an_unknown_component_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"versions\.kafka is no property of pom\.xml\. known: kafka\.version"):
        resolve_jars("kafka", {"kafka": "4.1.2"}, tmp_path)


def make_jars(folder, drop=""):
    parts = {
        "beam-runners-flink-1.19-2.70.0.jar": ["FlinkPipelineRunner", "FlinkPipelineRunner$1", "FlinkPipelineRunnerX"],
        "beam-runners-java-job-service-2.65.0.jar": ["PortablePipelineJarUtils"],
    }
    parts["beam-runners-flink-1.19-2.70.0.jar"].append("FlinkPortableRunnerResult")
    for jar, names in parts.items():
        package = "runners/flink" if "flink" in jar else "runners/jobsubmission"
        with zipfile.ZipFile(folder / jar, "w") as made:
            for name in names:
                if name != drop:
                    made.writestr(f"org/apache/beam/{package}/{name}.class", name)
    return folder


def test_the_base_jar_holds_only_the_classes_that_must_see_the_pipeline(tmp_path):
    write_base_jar(make_jars(tmp_path), tmp_path / "base.jar")
    with zipfile.ZipFile(tmp_path / "base.jar") as jar:
        names = [name.rpartition("/")[2] for name in jar.namelist()]
        assert jar.read("org/apache/beam/runners/flink/FlinkPipelineRunner$1.class") == b"FlinkPipelineRunner$1"
    assert names == [
        "MANIFEST.MF",
        "FlinkPipelineRunner.class",
        "FlinkPipelineRunner$1.class",
        "FlinkPortableRunnerResult.class",
        "PortablePipelineJarUtils.class",
    ]


def test_a_base_jar_without_its_classes_is_not_made(tmp_path):
    with pytest.raises(ClusterError, match=r"contains no class .*PortablePipelineJarUtils"):
        write_base_jar(make_jars(tmp_path, drop="PortablePipelineJarUtils"), tmp_path / "base.jar")
    assert not (tmp_path / "base.jar").exists()
    assert len(list(tmp_path.iterdir())) == 2
