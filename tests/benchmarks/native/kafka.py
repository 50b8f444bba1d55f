"""Kafka to columns on one core: events of about 100 bytes, one per record, from a real broker to an EventBlock.

Peers over the same topic: kafka-python's consumer with events decoded one by one (the alternative), that consumer's
records only, and confluent-kafka's records only. Processor time of this process is measured, including the client's
threads, excluding the broker.
"""

import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from pipeline.cluster.cluster import LocalCluster
from pipeline.configuration.deployment.services import Cluster
from pipeline.configuration.streams.events import Events
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.process.clock import SystemClock
from tests.benchmarks.harness.paired import main, paired
from tests.benchmarks.harness.report import Figure, Result
from tests.support.command.ports import free_port_range
from tests.support.reference.event_reference import decode_one_by_one

COLUMNS = {"id": "int", "user": "string", "item": "string", "position": "int", "price": "float", "page": "string"}
EVENTS = Events.model_validate(
    {"key": ["id"], "impressions": {"columns": COLUMNS}, "clicks": {"columns": {"id": "int"}}}
)
TOPIC = "events"
LEAST = 1e6
PER_APPEND = 5_000
PLAIN = ReadLimits(records=4_096, max_bytes=1 << 20)
RUNS = ReadLimits(records=65_536, max_bytes=8 << 20)


def measure(quick: bool, rounds: int) -> list[Result]:
    count = 20_000 if quick else 200_000
    port = free_port_range(2)
    with tempfile.TemporaryDirectory(prefix="springtide-kafka-") as folder:
        cluster = LocalCluster(Cluster(kafka_port=port, kafka_controller_port=port + 1), Path(folder))
        try:
            cluster.up(["kafka"])
            found = []
            for compression in ("none", "lz4"):
                found += _measured(cluster.bootstrap, compression, count, rounds)
            return found
        finally:
            cluster.down(wipe=True)


def _measured(bootstrap: str, compression: str, count: int, rounds: int) -> list[Result]:
    log = KafkaLog(KafkaSettings(bootstrap, f"{compression}.", compression=compression), SystemClock())
    for topic in (TOPIC, "schemas"):
        log.create_topic(topic, 1)
    codec = EventCodec(EVENTS, "impressions", log)
    mean_bytes = _fill(log, codec, count)
    sizes = {"events": count, "bytes": mean_bytes, "compression": compression, "threads": "one reader"}
    peers = {
        "kafka-python, event by event": partial(_one_by_one, log, codec, count),
        "kafka-python, records alone": partial(_records_alone, log, count),
        "confluent-kafka, records alone": partial(_confluent, bootstrap, f"{compression}.{TOPIC}", count),
    }
    work = partial(_by_runs, log, codec, count)
    what = "kafka to columns, {}, beside {}"
    results = [
        paired(Figure(what.format(compression, name), count, "events/s per core", sizes, LEAST), work, peer, rounds)
        for name, peer in peers.items()
    ]
    log.close()
    return results


def _fill(log: KafkaLog, codec: EventCodec, count: int) -> float:
    random = np.random.default_rng(1)
    total = 0
    for begin in range(0, count, PER_APPEND):
        values = [
            codec.encode_event(
                0,
                {
                    "id": number,
                    "user": f"user-{random.integers(0, 10**7):010d}",
                    "item": f"item-{random.integers(0, 10**6):09d}",
                    "position": int(random.integers(0, 50)),
                    "price": float(random.exponential(20)),
                    "page": f"/category/{random.integers(0, 100):03d}/list?sort=new&from=mail",
                },
            )
            for number in range(begin, begin + PER_APPEND)
        ]
        total += sum(map(len, values))
        log.append(TOPIC, 0, values)
    return total / count


def _by_runs(log: KafkaLog, codec: EventCodec, count: int) -> None:
    at = rows = 0
    while at < count:
        run = log.read_run(TOPIC, 0, at, RUNS)
        rows += codec.decode(run, TOPIC, 0, None).block.columns.num_rows
        at = run.next_offset
    assert rows == count


def _one_by_one(log: KafkaLog, codec: EventCodec, count: int) -> None:
    at = rows = 0
    while at < count:
        records = log.read(TOPIC, 0, at, PLAIN)
        rows += decode_one_by_one(codec, records, TOPIC, 0, None).block.columns.num_rows
        at = records[-1].offset + 1
    assert rows == count


def _records_alone(log: KafkaLog, count: int) -> None:
    at = 0
    while at < count:
        at = log.read(TOPIC, 0, at, PLAIN)[-1].offset + 1


def _confluent(bootstrap: str, topic: str, count: int) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"unused-{os.getpid()}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "check.crcs": True,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    read = 0
    while read < count:
        read += sum(len(message.value()) > 0 for message in consumer.consume(10_000, timeout=1.0))
    consumer.close()


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
