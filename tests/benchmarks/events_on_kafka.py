"""The join's events on Kafka, there before anybody reads them: one a record, as Kafka's users send them, or packed.

Behind them an event of each kind, long after all windows, says that nothing more is to come.
"""

import pyarrow as pa
from confluent_kafka import Producer

from pipeline.ground.block import Kind
from pipeline.ground.project import Project
from pipeline.ingest.ingest import EventTarget
from pipeline.logs.events import EventCodec
from pipeline.logs.log import Log
from tests.benchmarks.event_records import encode_events
from tests.benchmarks.join import SPAN_S, events_of
from tests.benchmarks.stream import START_MS, in_records

Events = dict[Kind, pa.RecordBatch]

_PRODUCER = {"enable.idempotence": True, "linger.ms": 20, "batch.size": 1 << 18, "queue.buffering.max.messages": 10**6}


def ended_events(rows: int) -> Events:
    """`rows` impressions, their clicks, and behind them one of each that belongs to none."""
    shown, clicks = events_of(rows)
    return {
        "impressions": pa.concat_batches([shown, after_all(shown, id=-1)]),
        "clicks": pa.concat_batches([clicks, after_all(clicks, id=-2)]),
    }


def append_packed(project: Project, log: Log, events: Events) -> None:
    """Append them as our own producers do, thousands in a record."""
    for kind, batch in events.items():
        target = EventTarget(project, log, kind)
        for part in in_records(batch):
            target.append(part)


def append_single(project: Project, log: Log, events: Events) -> None:
    """Append them to the first partition of their topics, one a record."""
    logs = project.config.logs
    producer = Producer({"bootstrap.servers": logs.bootstrap, "compression.type": logs.compression, **_PRODUCER})
    for kind, batch in events.items():
        schema, topic = EventCodec(project.config.events, kind, log).schema, project.config.topics.inputs[kind]
        for part in in_records(batch):
            for record in encode_events(schema.id, part):
                producer.produce(logs.prefix + topic, record, partition=0)
            producer.flush()


def after_all(batch: pa.RecordBatch, id: int) -> pa.RecordBatch:
    """One event like the first of `batch`, under another id and long after the span."""
    row = {**batch.slice(0, 1).to_pylist()[0], "at": START_MS + 2 * SPAN_S * 1000, "id": id}
    return pa.RecordBatch.from_pylist([row], schema=batch.schema)
