"""The join's events on Kafka, appended before they are read: one per record, as Kafka's users send them, or packed.

A few events of each kind long after all windows follow them, so that the watermark of every partition advances.
"""

from collections.abc import Sequence

import pyarrow as pa
from confluent_kafka import Producer

from pipeline.arrays.block import EventKind
from pipeline.arrays.keys import shard_of
from pipeline.configuration.project import Project
from pipeline.ingest.event_writer import EventWriter
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.interface.log import Log
from tests.benchmarks.load.event_records import encode_events
from tests.benchmarks.load.stream import START_MS, in_records
from tests.benchmarks.stages.join import SPAN_S, events_of

Events = dict[EventKind, pa.RecordBatch]

_ENDING = 16
"""Number of final events: enough that each of a few partitions gets one."""
_PRODUCER = {"enable.idempotence": True, "linger.ms": 20, "batch.size": 1 << 18, "queue.buffering.max.messages": 10**6}


def ended_events(rows: int) -> Events:
    """`rows` impressions, their clicks, and a few later events of each kind that match nothing."""
    shown, clicks = events_of(rows)
    return {
        "impressions": pa.concat_batches([shown, after_all(shown, range(-_ENDING, 0))]),
        "clicks": pa.concat_batches([clicks, after_all(clicks, range(-2 * _ENDING, -_ENDING))]),
    }


def append_packed(project: Project, log: Log, events: Events) -> None:
    """Append them as `EventWriter` does, thousands per record."""
    for kind, batch in events.items():
        target = EventWriter(project, log, kind)
        for part in in_records(batch):
            target.append(part)


def append_single(project: Project, log: Log, events: Events) -> None:
    """Append them one per record, to the partition of their key."""
    logs = project.config.logs
    producer = Producer({"bootstrap.servers": logs.bootstrap, "compression.type": logs.compression, **_PRODUCER})
    for kind, batch in events.items():
        schema, topic = EventCodec(project.config.events, kind, log).schema, project.config.input_topics[kind]
        for part in in_records(batch):
            partitions = shard_of(part, project.config.events.shard_columns, logs.partitions).tolist()
            for partition, record in zip(partitions, encode_events(schema.id, part), strict=True):
                producer.produce(logs.prefix + topic, record, partition=partition)
            producer.flush()


def after_all(batch: pa.RecordBatch, ids: Sequence[int]) -> pa.RecordBatch:
    """Events like the first of `batch`, with other ids and long after all others."""
    row = {**batch.slice(0, 1).to_pylist()[0], "at": START_MS + 2 * SPAN_S * 1000}
    return pa.RecordBatch.from_pylist([{**row, "id": id} for id in ids], schema=batch.schema)
