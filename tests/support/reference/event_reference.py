"""Decodes records one by one: the reference of the native decoder of single events, and its peer in a benchmark."""

from collections.abc import Sequence

from pipeline.logs.events.codec import DecodedRun, EventCodec
from pipeline.logs.events.event_block_builder import EventBlockBuilder
from pipeline.logs.interface.log import Record


def decode_one_by_one(
    codec: EventCodec, records: Sequence[Record], topic: str, partition: int, max_event_time_ms: int | None
) -> DecodedRun:
    """As `codec.decode`."""
    builder = EventBlockBuilder(codec.rules, topic, partition)
    for record in records:
        codec.add_record(builder, record)
    return builder.build(max_event_time_ms, records[-1].offset + 1)
