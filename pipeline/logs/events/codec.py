"""Encodes and decodes the records of the impressions and clicks topics.

A value is framed Avro of one of three kinds: a single event (schema from the configuration, writer schemas in the
`schemas` topic), an `event_block` (many events as packed columns), or a `heartbeat`. An event that cannot be decoded,
lacks a key or has an impossible time becomes a dead letter and does not change the partition's max event time; decoding
does not raise for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.arrays.block import EventKind
from pipeline.configuration.events import Events
from pipeline.errors import DamagedError, InputError
from pipeline.formats.columns import pack, unpack
from pipeline.formats.schemas import Schema, decode_body, encode, load_schema, parse_schema, unframe
from pipeline.logs.events.avro_events import decode_events
from pipeline.logs.events.event_block_builder import NO_WATERMARK, DecodedRun, EventBlockBuilder, EventRules
from pipeline.logs.events.event_columns import AT, arrow_schema, event_document, event_times, resolve_columns
from pipeline.logs.events.schema_registry import SchemaRegistry
from pipeline.logs.interface.log import Log, Record
from pipeline.logs.interface.record_run import RecordRun

__all__ = ["NO_WATERMARK", "DecodedRun", "EventCodec"]

_NAMESPACE = "springtide"


@dataclass(frozen=True)
class _WriterSchema:
    """How single events of one writer schema are decoded."""

    schema: Schema
    units_per_ms: int
    configured: bool
    """Whether it is the schema of this configuration, which needs no schema resolution."""


class EventCodec:
    """Encodes and decodes the events of one kind. Thread-safe for decoding."""

    def __init__(self, events: Events, kind: EventKind, log: Log) -> None:
        self._kind = kind
        columns = (events.impressions if kind == "impressions" else events.clicks).columns
        self._columns = arrow_schema(columns)
        self._document = event_document(kind, columns)
        self.schema = parse_schema(self._document)
        """The schema of single events as this configuration writes them."""
        self._block_schema, self._heartbeat_schema = load_schema("event_block"), load_schema("heartbeat")
        self._registry = SchemaRegistry(log)
        self._writers = {self.schema.id: _WriterSchema(self.schema, 1, True)}
        self._registered = False
        keys = tuple(dict.fromkeys((*events.key, *events.shard_columns)))
        self.rules = EventRules(kind, self._columns, keys, round(events.skew_s * 1000), round(events.disorder_s * 1000))

    def encode_event(self, at_ms: int, values: Mapping[str, Any]) -> bytes:
        """One event as one record; a column not given is null. Raises InputError if a value does not fit."""
        unknown = sorted(set(values) - set(self._columns.names))
        if unknown:
            raise InputError(f"{self._kind} have no column {', '.join(unknown)}. hint: declare it in springtide.toml")
        if not self._registered:
            self._registry.register(self._kind, self._document)
            self._registered = True
        try:
            return encode(self.schema, {AT: at_ms, **{n: values.get(n) for n in self._columns.names}})
        except Exception as failure:  # fastavro raises exceptions of many types for a wrong value
            raise InputError(f"event of {self._kind} does not fit its schema: {failure}") from failure

    def encode_block(self, batch: pa.RecordBatch) -> bytes:
        """Many events as one record: `at` (int64, ms) and columns. Raises InputError if they do not fit."""
        try:
            event_times(batch)
            resolve_columns(batch, self._columns)
        except DamagedError as failure:
            raise InputError(f"block of {self._kind}: {failure}") from failure
        return encode(self._block_schema, {"rows": batch.num_rows, "columns": pack(batch)})

    def encode_heartbeat(self, at_ms: int) -> bytes:
        """A promise that no event older than `at_ms` follows in the partition that it is appended to."""
        return encode(self._heartbeat_schema, {AT: at_ms})

    def decode(
        self, records: Sequence[Record], topic: str, partition: int, max_event_time_ms: int | None
    ) -> DecodedRun:
        """The events of consecutive records of one partition; at least one record.

        Single events of the configured schema are decoded natively, all at once.

        Args:
            records: as the log returned them; a `RecordRun` is not copied.
            topic: their topic, for dead letters.
            partition: their partition.
            max_event_time_ms: the result of the previous `decode` of this partition; None at its start.
        """
        run = records if isinstance(records, RecordRun) else RecordRun.of(records, records[0].offset)
        builder = EventBlockBuilder(self.rules, topic, partition)
        found = decode_events(run.values, self.schema.id, self._columns)
        row = decoded = 0
        for undecoded in (*found.undecoded.tolist(), len(run)):
            if count := undecoded - row:
                times = found.times[decoded : decoded + count]
                builder.add_events(run.part(row, undecoded), times, found.columns.slice(decoded, count))
                decoded += count
            if undecoded < len(run):
                self.add_record(builder, run[undecoded])
            row = undecoded + 1
        return builder.build(max_event_time_ms, run.next_offset)

    def add_record(self, builder: EventBlockBuilder, record: Record) -> None:
        """Decode one record of any kind, without the native decoder."""
        try:
            self._add(builder, record)
        except DamagedError as failure:
            builder.set_aside(record, str(failure))

    def empty_run(self, topic: str, partition: int, max_event_time_ms: int | None, next_offset: int) -> DecodedRun:
        """A run without records that ends at `next_offset`: it reports progress and the watermark."""
        return EventBlockBuilder(self.rules, topic, partition).build(max_event_time_ms, next_offset)

    def _add(self, builder: EventBlockBuilder, record: Record) -> None:
        found, body = unframe(record.value)
        if found == self._block_schema.id:
            datum = decode_body(self._block_schema, body)
            batch = unpack(datum["columns"], datum["rows"])
            builder.add_block(record, event_times(batch), resolve_columns(batch, self._columns), batch)
        elif found == self._heartbeat_schema.id:
            builder.add_heartbeat(record, decode_body(self._heartbeat_schema, body)[AT])
        else:
            writer = self._writer(found, builder)
            event = decode_body(writer.schema, body, None if writer.configured else self.schema)
            if not isinstance(event[AT], int):
                raise DamagedError(f"event time {AT} is {event[AT]}, wanted milliseconds")
            event[AT] //= writer.units_per_ms
            builder.add_event(record, event)

    def _writer(self, schema_id: int, builder: EventBlockBuilder) -> _WriterSchema:
        """An unknown id is looked up once per run, because writers register before they write. Raises DamagedError."""
        if schema_id in builder.unreadable_schemas:
            raise builder.unreadable_schemas[schema_id]
        writer = self._writers.get(schema_id)
        if writer is None:
            try:
                writer = self._writers[schema_id] = self._find_writer(schema_id)
            except DamagedError as failure:
                builder.unreadable_schemas[schema_id] = failure
                raise
        return writer

    def _find_writer(self, schema_id: int) -> _WriterSchema:
        found = self._registry.find(schema_id)
        if found is None:
            also = "".join(f"; {why}" for why in self._registry.unreadable.values())
            raise DamagedError(f"schema id {schema_id} is unknown: its writer did not register it{also}")
        if found.subject != self._kind:
            raise DamagedError(f"schema id {schema_id} is of {found.subject}, this topic holds {self._kind}")
        document = found.schema.document
        # Avro resolves records of the same name only, but a writer's record may have any name.
        try:
            renamed = parse_schema({**document, "name": self.schema.name, "namespace": _NAMESPACE})
        except ValueError as failure:
            raise DamagedError(f"schema id {schema_id} cannot be called {self.schema.name}: {failure}") from failure
        return _WriterSchema(renamed, _units_per_ms(document), False)


def _units_per_ms(document: Mapping[str, Any]) -> int:
    """1, or 1000 if a writer's event times are microseconds."""
    kinds = [f["type"] for f in document["fields"] if f["name"] == AT]
    micros = any(isinstance(kind, Mapping) and kind.get("logicalType") == "timestamp-micros" for kind in kinds)
    return 1000 if micros else 1
