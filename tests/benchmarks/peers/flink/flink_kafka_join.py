"""Flink SQL's interval join over Kafka's topics on a running cluster: the peer of our join on Flink.

It reads the same events, one per record, with Flink's Kafka connector and avro-confluent format (our frame is
Confluent's), and writes one Avro record per sample. Unlike ours, it has no compensations for clicks after the window,
no detection of duplicates and no dead letters; with `at-least-once` a failure may duplicate samples.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.cluster.cluster import LocalCluster
from pipeline.configuration.project import Project
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.kafka.kafka_log import KafkaLog
from tests.benchmarks.peers.flink.flink_join import OPENS, jars

Backend = Literal["hashmap", "rocksdb"]
Guarantee = Literal["at-least-once", "exactly-once"]

_HERE = Path(__file__).parent
_CLIENT_HEAP = "512m"
_PARALLELISM = 2
_CHECKPOINT_MS = 2_000
_SHIPPED = ("flink-table-api-java", "flink-table-common", "flink-table-runtime", "flink-connector-", "kafka-clients")
_SHIPPED += ("flink-sql-avro", "lz4-java", "snappy-java", "zstd-jni")
"""Prefixes of the jars that the cluster lacks and the job ships."""
_MANY = ReadLimits(records=65_536, max_bytes=8 << 20)


@dataclass(frozen=True)
class SqlJoin:
    """The join to be submitted.

    Attributes:
        impressions, clicks, samples: topics, by their full names on the broker.
        registry: URL of a schema registry with the events' schemas.
        window_ms: the attribution window.
        backend: of its state.
        guarantee: of the sink.
    """

    impressions: str
    clicks: str
    samples: str
    registry: str
    window_ms: int
    backend: Backend
    guarantee: Guarantee

    @classmethod
    def of(cls, project: Project, samples: str, registry: str, backend: Backend, guarantee: Guarantee) -> "SqlJoin":
        """The join of a project's events by its window, into topic `samples`."""
        prefix, topics = project.config.logs.prefix, project.config.input_topics
        window_ms = round(project.config.samples.window_s * 1000)
        names = (prefix + name for name in (topics["impressions"], topics["clicks"], samples))
        return cls(*names, registry, window_ms, backend, guarantee)


def schemas(project: Project, log: KafkaLog) -> dict[int, Mapping[str, Any]]:
    """The schemas of the project's events by id, for the registry."""
    found = [EventCodec(project.config.events, kind, log).schema for kind in project.config.input_topics]
    return {schema.id: schema.document for schema in found}


def submit(cluster: LocalCluster, cache: Path, join: SqlJoin) -> str:
    """Start the job on `cluster`; returns Flink's id of it. Raises CalledProcessError with Java's output."""
    libraries = jars(cache, "flink_kafka_join")
    shipped = [str(path) for path in sorted(libraries.glob("*.jar")) if path.name.startswith(_SHIPPED)]
    program = ["java", f"-Xmx{_CLIENT_HEAP}", *OPENS, "-cp", f"{libraries}/*", str(_HERE / "FlinkKafkaJoin.java")]
    topics = [join.impressions, join.clicks, join.samples]
    job = [str(join.window_ms), str(_PARALLELISM), join.backend, str(_CHECKPOINT_MS)]
    checkpoints = (cluster.folder / "flink" / "sql").as_uri()
    arguments = [str(cluster.settings.flink_rest_port), cluster.bootstrap, join.registry, *topics, *job, checkpoints]
    command = [*program, *arguments, join.guarantee, ",".join(shipped)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


class SqlSamples:
    """Counts the samples of the peer in partition 0 of a topic; each record is read once."""

    def __init__(self, log: KafkaLog, topic: str) -> None:
        self._log, self._topic, self._at = log, topic, 0
        self.samples = self.positives = self.compensations = 0

    def poll(self) -> int:
        """Read the new records; returns the number of samples so far."""
        while len(run := self._log.read_run(self._topic, 0, self._at, _MANY)):
            self._at = run.next_offset
            self.samples += len(run)
            # The label is the last field of the record: 0 is written as 0, 1 as 2.
            ends = np.frombuffer(run.values.buffers()[1], np.int32)[run.values.offset :][1 : len(run) + 1]
            content = np.frombuffer(run.values.buffers()[2], np.uint8)
            self.positives += int(np.count_nonzero(content[ends - 1]))
        return self.samples
