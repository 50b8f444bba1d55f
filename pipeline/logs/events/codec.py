"""Events on the wire: what a record of the impressions and clicks topics holds, and how a run of them becomes a block.

A value is framed Avro of one of three kinds: a single event (schema from the configuration, writers' schemas in the
`schemas` topic), an `event_block` (many events as packed columns), a `heartbeat`. What cannot be read, has no key or an
impossible time becomes a dead letter and never moves the partition's mark. Nothing here raises over a bad event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.arrays.block import DeadLetters, EventBlock, EventKind
from pipeline.configuration.events import Events
from pipeline.errors import DamagedError, InputError
from pipeline.formats.columns import pack, unpack
from pipeline.formats.schemas import Schema, decode_body, encode, load_schema, parse_schema, unframe
from pipeline.logs.events.avro_events import decode_events
from pipeline.logs.events.event_block_builder import NO_WATERMARK, EventBlockBuilder, EventRules
from pipeline.logs.events.event_columns import AT, arrow_schema, event_document, event_times, resolve_columns
from pipeline.logs.events.schema_registry import SchemaRegistry
from pipeline.logs.log import Log, Record
from pipeline.logs.record_run import RecordRun

__all__ = ["NO_WATERMARK", "DecodedRun", "EventCodec"]

_NAMESPACE = "springtide"


@dataclass(frozen=True)
class DecodedRun:
    """What a run of records held.

    Attributes:
        block: the events, in log order.
        dead: what was set aside, one per source position, in log order.
        max_event_time_ms: the partition's max event time, ms (an event counts up to its append, a heartbeat as its
            time + disorder); None where nothing was seen yet. The next `decode` of this partition wants it.
    """

    block: EventBlock
    dead: DeadLetters
    max_event_time_ms: int | None


@dataclass(frozen=True)
class _Writer:
    """How to read the single events of one writer."""

    schema: Schema
    units_per_ms: int
    same: bool
    """Whether the writer's schema is just ours."""


class EventCodec:
    """Encodes and decodes the events of one kind. Thread-safe for decoding."""

    def __init__(self, events: Events, kind: EventKind, log: Log) -> None:
        self._kind = kind
        columns = (events.impressions if kind == "impressions" else events.clicks).columns
        self._columns = arrow_schema(columns)
        self._document = event_document(kind, columns)
        self._schema = parse_schema(self._document)
        self._block_schema, self._heartbeat_schema = load_schema("event_block"), load_schema("heartbeat")
        self._registry = SchemaRegistry(log)
        self._writers = {self._schema.id: _Writer(self._schema, 1, True)}
        self._registered = False
        keys = tuple(dict.fromkeys((*events.key, *events.shard_columns)))
        self._rules = EventRules(
            kind, self._columns, keys, round(events.skew_s * 1000), round(events.disorder_s * 1000)
        )

    @property
    def schema(self) -> Schema:
        """The schema of single events as this configuration writes them."""
        return self._schema

    def encode_event(self, at_ms: int, values: Mapping[str, Any]) -> bytes:
        """One event as one record; a column not given is null. Raises InputError where a value does not fit."""
        unknown = sorted(set(values) - set(self._columns.names))
        if unknown:
            raise InputError(f"{self._kind} have no column {', '.join(unknown)}. hint: declare it in springtide.toml")
        if not self._registered:
            self._registry.register(self._kind, self._document)
            self._registered = True
        try:
            return encode(self._schema, {AT: at_ms, **{n: values.get(n) for n in self._columns.names}})
        except Exception as failure:  # fastavro raises what the wrong type happens to cause
            raise InputError(f"event of {self._kind} does not fit its schema: {failure}") from failure

    def encode_block(self, batch: pa.RecordBatch) -> bytes:
        """Many events as one record: `at` (int64, ms) and columns. Raises InputError where they do not fit."""
        try:
            event_times(batch)
            resolve_columns(batch, self._columns)
        except DamagedError as failure:
            raise InputError(f"block of {self._kind}: {failure}") from failure
        return encode(self._block_schema, {"rows": batch.num_rows, "columns": pack(batch)})

    def encode_heartbeat(self, at_ms: int) -> bytes:
        """A promise that no event older than `at_ms` follows in the partition it is written to."""
        return encode(self._heartbeat_schema, {AT: at_ms})

    def decode(
        self, records: Sequence[Record], topic: str, partition: int, max_event_time_ms: int | None
    ) -> DecodedRun:
        """The events of consecutive records of one partition; at least one record.

        Args:
            records: as `Log.read` returned them.
            topic: where they came from, for dead letters.
            partition: where they came from.
            max_event_time_ms: what the previous `decode` of this partition returned; None at its start.
        """
        assert records, "a run of records has at least one"
        run = EventBlockBuilder(self._rules, topic, partition)
        for record in records:
            self._read_or_set_aside(run, record)
        block, dead, mark = run.finish(max_event_time_ms, records[-1].offset + 1)
        return DecodedRun(block, dead, mark)

    def empty_run(self, topic: str, partition: int, max_event_time_ms: int | None, next_offset: int) -> DecodedRun:
        """A run of no records, before `next_offset`: it says where reading stands."""
        return DecodedRun(*EventBlockBuilder(self._rules, topic, partition).finish(max_event_time_ms, next_offset))

    def decode_run(self, run: RecordRun, topic: str, partition: int, max_event_time_ms: int | None) -> DecodedRun:
        """As `decode`, for a run: single events of this configuration's own schema are decoded all at once."""
        events = EventBlockBuilder(self._rules, topic, partition)
        found = decode_events(run.values, self._schema.id, self._columns)
        row = decoded = 0
        for declined in (*found.declined.tolist(), len(run)):
            if count := declined - row:
                times = found.times[decoded : decoded + count]
                events.add_events(run.part(row, declined), times, found.columns.slice(decoded, count))
                decoded += count
            if declined < len(run):
                self._read_or_set_aside(events, run.record(declined))
            row = declined + 1
        block, dead, mark = events.finish(max_event_time_ms, run.next_offset)
        return DecodedRun(block, dead, mark)

    def _read_or_set_aside(self, run: EventBlockBuilder, record: Record) -> None:
        try:
            self._read(run, record)
        except DamagedError as failure:
            run.set_aside(record, str(failure))

    def _read(self, run: EventBlockBuilder, record: Record) -> None:
        found, body = unframe(record.value)
        if found == self._block_schema.id:
            datum = decode_body(self._block_schema, body)
            batch = unpack(datum["columns"], datum["rows"])
            run.add_block(record, event_times(batch), resolve_columns(batch, self._columns), batch)
        elif found == self._heartbeat_schema.id:
            run.add_heartbeat(record, decode_body(self._heartbeat_schema, body)[AT])
        else:
            writer = self._writer(found, run)
            event = decode_body(writer.schema, body, None if writer.same else self._schema)
            if not isinstance(event[AT], int):
                raise DamagedError(f"event time {AT} is {event[AT]}, wanted milliseconds")
            event[AT] //= writer.units_per_ms
            run.add_event(record, event)

    def _writer(self, schema_id: int, run: EventBlockBuilder) -> _Writer:
        """The registry is asked once a run for what is not known: by then, all that its events need was registered."""
        if schema_id in run.refused:
            raise run.refused[schema_id]
        writer = self._writers.get(schema_id)
        if writer is None:
            try:
                writer = self._writers[schema_id] = self._find_writer(schema_id)
            except DamagedError as failure:
                run.refused[schema_id] = failure
                raise
        return writer

    def _find_writer(self, schema_id: int) -> _Writer:
        found = self._registry.find(schema_id)
        if found is None:
            also = "".join(f"; {why}" for why in self._registry.unreadable.values())
            raise DamagedError(f"schema id {schema_id} is unknown: its writer did not register it{also}")
        if found.subject != self._kind:
            raise DamagedError(f"schema id {schema_id} is of {found.subject}, this topic holds {self._kind}")
        document = found.schema.document
        # Avro resolves records of one name only; what writers call their record is their affair.
        try:
            renamed = parse_schema({**document, "name": self._schema.name, "namespace": _NAMESPACE})
        except ValueError as failure:
            raise DamagedError(f"schema id {schema_id} cannot be called {self._schema.name}: {failure}") from failure
        return _Writer(renamed, _units_per_ms(document), False)


def _units_per_ms(document: Mapping[str, Any]) -> int:
    """1, or 1000 where a writer's event times are microseconds."""
    kinds = [f["type"] for f in document["fields"] if f["name"] == AT]
    micros = any(isinstance(kind, Mapping) and kind.get("logicalType") == "timestamp-micros" for kind in kinds)
    return 1000 if micros else 1
