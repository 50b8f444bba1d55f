"""Encodes and decodes the records of the input topics.

A value is framed Avro of one of three kinds: a single event (schema from the configuration, writer schemas in the
`schemas` topic or in a Confluent registry), an `event_block` (many events as packed columns), or a `heartbeat`. If the
input is configured so, a value without a frame is a JSON object. An event that cannot be decoded, lacks a key or has an
impossible time becomes a dead letter and does not change the partition's max event time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import EventKind
from pipeline.arrays.types import Int64s
from pipeline.configuration.project import Project
from pipeline.configuration.streams.events import EventColumns, Events
from pipeline.errors import DamagedError, InputError
from pipeline.formats.columns import pack, unpack
from pipeline.formats.schemas import Schema, decode_body, encode, load_schema, parse_schema, unframe
from pipeline.logs.events.avro_events import decode_events
from pipeline.logs.events.confluent_registry import ConfluentRegistry, confluent_registry
from pipeline.logs.events.event_block_builder import NO_WATERMARK, DecodedRun, EventBlockBuilder, EventRules
from pipeline.logs.events.event_columns import (
    AT,
    arrow_schema,
    event_document,
    event_times,
    from_avro,
    resolve_columns,
    to_avro,
    unsigned_columns,
)
from pipeline.logs.events.json_events import decode_json_events
from pipeline.logs.events.schema_registry import RegisteredSchema, SchemaRegistry
from pipeline.logs.interface.log import Log, Record
from pipeline.logs.interface.record_run import RecordRun

__all__ = ["NO_WATERMARK", "DecodedRun", "EventCodec"]

_NAMESPACE = "springtide"
_FRAME_BEGIN = b"\0"


@dataclass(frozen=True)
class _WriterSchema:
    """How single events of one writer schema are decoded."""

    schema: Schema
    units_per_ms: int
    configured: bool
    """Whether it is the schema of this configuration, which needs no schema resolution."""


class EventCodec:
    """Encodes and decodes the events of one kind. Thread-safe for decoding."""

    def __init__(self, events: Events, kind: EventKind, log: Log, registry: ConfluentRegistry | None = None) -> None:
        """Use `of` for a project with a registry."""
        self._kind, self._confluent = kind, registry
        self._event_columns: EventColumns = events.by_kind[kind]
        self.reads_json = self._event_columns.encoding == "json"
        """Whether values without a frame are JSON objects."""
        columns = self._event_columns.columns
        self._columns = arrow_schema(columns)
        self._unsigned = unsigned_columns(self._columns)
        self._document = event_document(kind, columns)
        self.schema = parse_schema(self._document)
        """The schema of single events as this configuration writes them."""
        self._block_schema, self._heartbeat_schema = load_schema("event_block"), load_schema("heartbeat")
        self._registry = SchemaRegistry(log)
        self._writers = {self.schema.id: _WriterSchema(self.schema, 1, True)}
        self._registered = False
        keys = tuple(dict.fromkeys((*events.key, *events.shard_columns)))
        self.rules = EventRules(kind, self._columns, keys, round(events.skew_s * 1000), round(events.disorder_s * 1000))

    @classmethod
    def of(cls, project: Project, kind: EventKind, log: Log) -> "EventCodec":
        """The codec of a project. Raises ConfigError if the registry's password cannot be read."""
        return cls(project.config.events, kind, log, confluent_registry(project))

    def encode_event(self, at_ms: int, values: Mapping[str, Any]) -> bytes:
        """One event as one record; a column not given is null. Raises InputError if a value does not fit."""
        unknown = sorted(set(values) - set(self._columns.names))
        if unknown:
            raise InputError(f"{self._kind} have no column {', '.join(unknown)}. hint: declare it in springtide.toml")
        if not self._registered:
            self._registry.register(self._kind, self._document)
            self._registered = True
        values = {name: values.get(name) for name in self._columns.names}
        values |= {name: to_avro(values[name], kind) for name, kind in self._unsigned.items()}
        try:
            return encode(self.schema, {AT: at_ms, **values})
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

        Single events of the configured schema are decoded natively, all at once; JSON objects next to each other too.
        Raises LogError if the registry that has a writer schema is unavailable.

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
        for first, stop in (*self._undecoded_parts(run, found.undecoded), (len(run), len(run))):
            if count := first - row:
                times = found.times[decoded : decoded + count]
                builder.add_events(run.part(row, first), times, found.columns.slice(decoded, count))
                decoded += count
            if stop - first > 1:
                self._add_json(builder, run.part(first, stop))
            elif stop > first:
                self.add_record(builder, run[first])
            row = stop
        return builder.build(max_event_time_ms, run.next_offset)

    def _undecoded_parts(self, run: RecordRun, undecoded: Int64s) -> Iterator[tuple[int, int]]:
        """First and stop of the rows to decode together: JSON objects next to each other, otherwise one row."""
        if not self.reads_json or not len(undecoded):
            yield from ((row, row + 1) for row in undecoded.tolist())
            return
        framed = pc.starts_with(run.values, pattern=_FRAME_BEGIN)
        plain = ~np.asarray(framed.to_numpy(zero_copy_only=False), np.bool_)[undecoded]
        together = np.concatenate([[False], (np.diff(undecoded) == 1) & plain[1:] & plain[:-1]])
        firsts = np.flatnonzero(~together)
        for first, stop in zip(firsts.tolist(), [*firsts[1:].tolist(), len(undecoded)], strict=True):
            yield int(undecoded[first]), int(undecoded[stop - 1]) + 1

    def _add_json(self, builder: EventBlockBuilder, run: RecordRun) -> None:
        found = decode_json_events(run.values.to_pylist(), self._event_columns, self._columns)
        row = decoded = 0
        for bad in (*sorted(found.bad), len(run)):
            if count := bad - row:
                times = found.times[decoded : decoded + count]
                builder.add_events(run.part(row, bad), times, found.columns.slice(decoded, count))
                decoded += count
            if bad < len(run):
                builder.set_aside(run[bad], found.bad[bad])
            row = bad + 1

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
        if self.reads_json and not _framed(record.value):
            self._add_json(builder, RecordRun.of([record], record.offset))
            return
        found, body = self._unframe(record.value)
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
            event |= {name: from_avro(event[name], kind) for name, kind in self._unsigned.items()}
            builder.add_event(record, event)

    def _unframe(self, value: bytes) -> tuple[int, memoryview]:
        try:
            return unframe(value)
        except DamagedError as failure:
            if value[:1] != b"{":
                raise
            raise DamagedError(f"{failure}. hint: events.{self._kind}.encoding = 'json'") from None

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
        if found is None and self._confluent is not None and (schema := self._confluent.find(schema_id)) is not None:
            found = RegisteredSchema(self._kind, schema)
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


def _framed(value: bytes) -> bool:
    """Whether a value may have a frame, which begins with a zero byte: no JSON does."""
    return value.startswith(_FRAME_BEGIN)


def _units_per_ms(document: Mapping[str, Any]) -> int:
    """1, or 1000 if a writer's event times are microseconds."""
    kinds = [f["type"] for f in document["fields"] if f["name"] == AT]
    micros = any(isinstance(kind, Mapping) and kind.get("logicalType") == "timestamp-micros" for kind in kinds)
    return 1000 if micros else 1
