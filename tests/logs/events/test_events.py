"""Decoding of events, dead letters, and the watermarks of a partition."""

import dataclasses
import itertools
import json
import pickle
import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.arrays.block import EventBlock
from pipeline.configuration.streams.events import Events
from pipeline.configuration.streams.logs import SCHEMAS_TOPIC
from pipeline.errors import InputError, LogError
from pipeline.formats.columns import pack
from pipeline.formats.schemas import encode, frame, load_schema, parse_schema
from pipeline.logs.events.codec import NO_WATERMARK, DecodedRun, EventCodec
from pipeline.logs.events.event_columns import event_document
from pipeline.logs.events.schema_registry import SchemaRegistry
from pipeline.logs.interface.log import Record
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from tests.support.manual_clock import ManualClock
from tests.support.reference.event_reference import decode_one_by_one

COLUMNS = {"id": "int", "item": "string", "price": "float", "seen": "bool", "tags": "strings"}
NOW = 1_000_000
DISORDER = 30_000
SKEW = 60_000


def events(columns: dict[str, str] = COLUMNS, **more) -> Events:
    clicks = {"columns": {"id": "int", "item": "string"}}
    return Events.model_validate({"key": ["id", "item"], "impressions": {"columns": columns}, "clicks": clicks, **more})


@pytest.fixture
def log(tmp_path):
    return SqliteLog(tmp_path, ManualClock(NOW))


@pytest.fixture
def codec(log):
    return EventCodec(events(), "impressions", log)


def records(values: Sequence[bytes], first: int = 0, step: int = 1) -> list[Record]:
    return [Record(first + n * step, NOW, value) for n, value in enumerate(values)]


def batch(times: Sequence[int | None], **columns) -> pa.RecordBatch:
    n = len(times)
    named = {"id": list(range(n)), "item": ["x"] * n, **columns}
    return pa.record_batch({"at": pa.array(times, pa.int64()), **named})


def event(codec: EventCodec, at_ms: int, **values) -> bytes:
    return codec.encode_event(at_ms, {"id": 1, "item": "x", **values})


def decode(codec: EventCodec, values: Sequence[bytes], max_event_time_ms: int | None = None) -> DecodedRun:
    return both_ways(codec, records(values), max_event_time_ms)


def both_ways(codec: EventCodec, found: list[Record], max_event_time_ms: int | None) -> DecodedRun:
    """The result of decoding records one by one, which must equal that of decoding them as a run."""
    decoded = decode_one_by_one(codec, found, "in", 3, max_event_time_ms)
    run = codec.decode(found, "in", 3, max_event_time_ms)
    # repr, because NaN does not equal itself, and the padding of buffers may differ.
    assert repr(run.block.columns.to_pylist()) == repr(decoded.block.columns.to_pylist())
    assert run.block.columns.schema == decoded.block.columns.schema
    for field in dataclasses.fields(EventBlock):
        if field.name != "columns":
            assert np.array_equal(getattr(run.block, field.name), getattr(decoded.block, field.name)), field.name
    assert run.dead.table.to_pylist() == decoded.dead.table.to_pylist()
    assert run.max_event_time_ms == decoded.max_event_time_ms
    return decoded


def letters(decoded: DecodedRun) -> list[dict]:
    return decoded.dead.table.to_pylist()


def maxima(decoded: DecodedRun) -> list[int]:
    return (decoded.block.watermarks_ms + DISORDER).tolist()


class TestReading:
    def test_single_events_are_decoded_with_position_and_time(self, codec):
        full = {"id": 5, "item": "é", "price": 2.5, "seen": True, "tags": ["a", "b"]}
        values = [codec.encode_event(10, full), event(codec, 20)]
        block = codec.decode(records(values, first=7, step=3), "in", 3, None).block
        null = {"id": 1, "item": "x", "price": None, "seen": None, "tags": None}
        assert block.columns.to_pylist() == [full, null]
        assert (block.kind, block.partition, block.next_offset) == ("impressions", 3, 11)
        assert [a.tolist() for a in (block.at_ms, block.offsets, block.rows)] == [[10, 20], [7, 10], [0, 0]]
        assert [a.dtype for a in (block.at_ms, block.offsets, block.rows, block.watermarks_ms)] == [
            "i8",
            "i8",
            "i4",
            "i8",
        ]

    def test_packed_rows_are_decoded_with_their_row_numbers(self, codec):
        values = [codec.encode_block(batch([10, 20], item=["a", "b"])), codec.encode_block(batch([30], tags=[["t"]]))]
        block = codec.decode(records(values, first=4), "in", 0, None).block
        assert block.columns.column("item").to_pylist() == ["a", "b", "x"]
        assert block.columns.column("tags").to_pylist() == [None, None, ["t"]]
        assert [a.tolist() for a in (block.at_ms, block.offsets, block.rows)] == [[10, 20, 30], [4, 4, 5], [0, 1, 0]]

    def test_packed_and_single_events_mix_in_log_order(self, codec):
        values = [event(codec, 1), event(codec, 2), codec.encode_block(batch([3, 4])), event(codec, 5)]
        block = decode(codec, values).block
        assert (block.at_ms.tolist(), block.rows.tolist()) == ([1, 2, 3, 4, 5], [0, 0, 0, 1, 0])
        assert block.offsets.tolist() == [0, 1, 2, 2, 3]

    def test_a_packed_block_is_read_by_column_name(self, codec):
        packed = pa.record_batch({"extra": [b"?"], "item": ["x"], "at": pa.array([5], pa.int64()), "id": [9]})
        found = decode(codec, [codec.encode_block(packed)]).block.columns.to_pylist()
        assert found == [{"id": 9, "item": "x", "price": None, "seen": None, "tags": None}]

    def test_packed_columns_of_narrower_types_are_widened(self, codec):
        packed = batch(
            [5],
            id=pa.array([9], pa.int16()),
            item=pa.array(["x"]).dictionary_encode(),
            price=pa.array([2], pa.int8()),
            tags=pa.array([["t"]], pa.large_list(pa.large_string())),
        )
        block = decode(codec, [codec.encode_block(packed)]).block
        assert block.columns.to_pylist() == [{"id": 9, "item": "x", "price": 2.0, "seen": None, "tags": ["t"]}]
        assert block.columns.schema.field("tags").type == pa.list_(pa.string())

    def test_packed_times_may_be_timestamps(self, codec):
        packed = batch([0]).set_column(0, "at", pa.array([5_999_999], pa.timestamp("ns", "UTC")))
        assert decode(codec, [codec.encode_block(packed)]).block.at_ms.tolist() == [5]

    def test_an_empty_packed_block_holds_no_events(self, codec):
        decoded = decode(codec, [codec.encode_block(batch([5, 6]).slice(0, 0))])
        assert (len(decoded.block), decoded.block.next_offset, decoded.max_event_time_ms) == (0, 1, None)

    def test_a_block_survives_serialisation_for_beam(self, codec):
        block = decode(codec, [event(codec, 10), codec.encode_block(batch([1, 2]))]).block
        again = pickle.loads(pickle.dumps(block, protocol=5))
        assert again.columns == block.columns
        assert again.watermarks_ms.tolist() == block.watermarks_ms.tolist()


class TestWatermarks:
    def test_a_rows_watermark_is_the_max_event_time_up_to_and_including_it_minus_disorder(self, codec):
        decoded = decode(codec, [codec.encode_block(batch([5, 3, 9])), event(codec, 4), event(codec, 10)])
        assert decoded.block.watermarks_ms.tolist() == [m - DISORDER for m in (5, 5, 9, 9, 10)]
        assert (decoded.max_event_time_ms, decoded.block.watermark_ms) == (10, 10 - DISORDER)

    def test_the_max_event_time_of_the_previous_run_is_continued(self, codec):
        decoded = decode(codec, [event(codec, 5), event(codec, 70)], max_event_time_ms=60)
        assert (maxima(decoded), decoded.max_event_time_ms) == ([60, 70], 70)

    def test_a_heartbeat_raises_the_watermark_to_its_time(self, codec):
        decoded = decode(codec, [event(codec, 1000), codec.encode_heartbeat(500_000), event(codec, 2000)])
        assert decoded.block.watermarks_ms.tolist() == [1000 - DISORDER, 500_000]
        assert decoded.block.watermark_ms == 500_000
        assert decoded.block.at_ms.tolist() == [1000, 2000]

    def test_a_trailing_heartbeat_is_in_the_watermark_but_in_no_row(self, codec):
        decoded = decode(codec, [event(codec, 1000), codec.encode_heartbeat(500_000)])
        assert maxima(decoded) == [1000]
        assert (decoded.block.watermark_ms, decoded.block.next_offset) == (500_000, 2)

    def test_a_heartbeat_below_the_watermark_does_nothing(self, codec):
        watermark = 100_000 - DISORDER
        for at, after in ((watermark - 1, 100_000), (watermark, 100_000), (watermark + 1, 100_001)):
            assert decode(codec, [event(codec, 100_000), codec.encode_heartbeat(at)]).max_event_time_ms == after

    def test_a_run_of_one_heartbeat_has_no_events_but_progresses(self, codec):
        decoded = decode(codec, [codec.encode_heartbeat(7)])
        assert (len(decoded.block), decoded.block.next_offset, decoded.block.watermark_ms) == (0, 1, 7)
        assert decoded.max_event_time_ms == 7 + DISORDER
        assert decoded.block.columns.schema.names == list(COLUMNS)

    def test_without_any_event_there_is_no_watermark(self, codec):
        decoded = decode(codec, [b"rubbish"])
        assert (decoded.max_event_time_ms, decoded.block.watermark_ms, decoded.block.next_offset) == (
            None,
            NO_WATERMARK,
            1,
        )

    def test_an_undecodable_record_does_not_change_the_max_event_time(self, codec):
        decoded = decode(codec, [b"rubbish"], max_event_time_ms=50)
        assert (decoded.max_event_time_ms, decoded.block.watermark_ms) == (50, 50 - DISORDER)

    @settings(max_examples=60)
    @given(data=st.data())
    def test_watermarks_do_not_depend_on_the_boundaries_of_runs(self, tmp_path_factory, data):
        codec = EventCodec(events(), "impressions", SqliteLog(tmp_path_factory.mktemp("log"), ManualClock(NOW)))
        time = st.integers(-5, NOW + SKEW + 5)
        value = st.one_of(
            st.builds(lambda at: event(codec, at), time),
            st.builds(codec.encode_heartbeat, time),
            st.builds(lambda times: codec.encode_block(batch(times)), st.lists(time, min_size=1, max_size=4)),
            st.just(b"rubbish"),
        )
        run = records(data.draw(st.lists(value, min_size=1, max_size=12)))
        cuts = sorted({0, len(run), *data.draw(st.lists(st.integers(0, len(run)), max_size=4))})
        whole = codec.decode(run, "in", 0, None)
        max_event_time_ms, parts = None, []
        for start, stop in itertools.pairwise(cuts):
            parts.append(codec.decode(run[start:stop], "in", 0, max_event_time_ms))
            max_event_time_ms = parts[-1].max_event_time_ms
        assert max_event_time_ms == whole.max_event_time_ms
        assert parts[-1].block.watermark_ms == whole.block.watermark_ms
        for name in ("at_ms", "offsets", "rows", "watermarks_ms"):
            found = np.concatenate([getattr(part.block, name) for part in parts])
            assert found.tolist() == getattr(whole.block, name).tolist()
        assert [letter for part in parts for letter in letters(part)] == letters(whole)


class TestTimes:
    @pytest.mark.parametrize(("at", "alive"), [(-1, False), (0, True), (NOW + SKEW, True), (NOW + SKEW + 1, False)])
    def test_times_from_1970_to_the_append_plus_skew_are_accepted(self, codec, at, alive):
        for value in (event(codec, at), codec.encode_block(batch([at]))):
            decoded = decode(codec, [value])
            assert (len(decoded.block), decoded.dead.table.num_rows) == ((1, 0) if alive else (0, 1))
            assert decoded.max_event_time_ms == (min(at, NOW) if alive else None)

    def test_an_event_raises_the_max_event_time_at_most_to_its_append(self, codec):
        decoded = decode(codec, [event(codec, NOW - 1), event(codec, NOW + SKEW), event(codec, NOW - 2)])
        assert decoded.block.at_ms.tolist() == [NOW - 1, NOW + SKEW, NOW - 2]
        assert (maxima(decoded), decoded.max_event_time_ms) == ([NOW - 1, NOW, NOW], NOW)

    def test_a_heartbeat_counts_up_to_the_skew_after_its_append(self, codec):
        ahead = NOW + SKEW
        assert decode(codec, [codec.encode_heartbeat(ahead)]).block.watermark_ms == ahead
        assert decode(codec, [codec.encode_heartbeat(ahead + 1)]).max_event_time_ms is None

    @pytest.mark.parametrize("at", [-(2**63), -1, NOW + SKEW + 1, 2**63 - 1])
    def test_an_impossible_time_is_set_aside_and_does_not_change_the_max_event_time(self, codec, at):
        poison = event(codec, at)
        decoded = decode(codec, [event(codec, 5), poison, codec.encode_heartbeat(at), event(codec, 6)])
        assert (decoded.block.at_ms.tolist(), maxima(decoded), decoded.max_event_time_ms) == ([5, 6], [5, 6], 6)
        found = letters(decoded)
        assert [(f["reason"], f["event_at"], f["offset"]) for f in found] == [
            ("time_out_of_range", at, n) for n in (1, 2)
        ]
        assert found[0]["original"] == poison

    def test_each_record_is_measured_by_its_own_append(self, codec):
        value = codec.encode_block(batch([NOW + SKEW + 5]))
        run = [Record(0, NOW, value), Record(1, NOW + 5, value)]
        assert codec.decode(run, "in", 0, None).block.offsets.tolist() == [1]

    def test_a_packed_row_set_aside_is_stored_as_json_with_its_row(self, codec):
        packed = batch([5, -7, 6], item=["a", "ü", "c"], note=["", "more", ""])
        decoded = decode(codec, [codec.encode_block(packed)])
        assert decoded.block.rows.tolist() == [0, 2]
        assert decoded.block.columns.column("item").to_pylist() == ["a", "c"]
        (letter,) = letters(decoded)
        assert json.loads(letter.pop("original")) == {"at": -7, "id": 1, "item": "ü", "note": "more"}
        assert letter == {
            "reason": "time_out_of_range",
            "topic": "in",
            "partition": 3,
            "offset": 0,
            "row": 1,
            "event_at": -7,
            "detail": "event time 1969-12-31T23:59:59.993Z is before 1970",
        }

    def test_the_detail_contains_how_far_ahead_a_time_is(self, codec):
        (letter,) = letters(decode(codec, [event(codec, NOW + 2 * SKEW)]))
        assert letter["detail"] == "event time 1970-01-01T00:18:40Z is 120 s after its append, skew allows 60 s"


class TestUndecodable:
    def of(self, codec: EventCodec, value: bytes) -> str:
        """The detail of the dead letter of `value`, between two valid events."""
        decoded = decode(codec, [event(codec, 1), value, event(codec, 2)])
        assert decoded.block.at_ms.tolist() == [1, 2]
        (letter,) = letters(decoded)
        assert (letter["reason"], letter["offset"], letter["row"], letter["original"]) == ("undecodable", 1, 0, value)
        return str(letter["detail"])

    @pytest.mark.parametrize("value", [b"", b"\0", b"plain text", b'{"id": 1}'])
    def test_a_value_without_a_frame(self, codec, value):
        assert "wanted 0 and a schema id" in self.of(codec, value)

    def test_a_schema_that_is_not_registered(self, codec):
        assert self.of(codec, frame(77, b"x")) == "schema id 77 is unknown: its writer did not register it"

    def test_an_event_cut_short_or_too_long(self, codec):
        value = event(codec, 5, item="a longer item")
        assert "bytes are not a valid impression" in self.of(codec, value[:-6])
        assert "impression ends after" in self.of(codec, value + b"\0")

    def test_text_that_is_not_utf8(self, codec):
        assert "utf-8" in self.of(codec, event(codec, 5, item="abc").replace(b"abc", b"a\xffc"))
        raw = pa.Array.from_buffers(pa.string(), 1, pa.array([b"a\xffc"]).buffers())
        packed = encode(load_schema("event_block"), {"rows": 1, "columns": pack(batch([5], item=raw))})
        assert "columns are not an arrow stream" in self.of(codec, packed)

    def test_a_packed_block_with_a_wrong_number_of_rows(self, codec):
        value = encode(load_schema("event_block"), {"rows": 3, "columns": pack(batch([1]))})
        assert self.of(codec, value) == "columns hold 1 rows in 1 batches, wanted 3 in 1"

    def test_a_packed_block_cut_short(self, codec):
        packed = pack(batch([1, 2, 3]))
        value = encode(load_schema("event_block"), {"rows": 3, "columns": packed[: len(packed) // 2]})
        assert "columns" in self.of(codec, value)

    def test_a_packed_block_without_a_time(self, codec):
        value = encode(
            load_schema("event_block"), {"rows": 1, "columns": pack(pa.record_batch({"id": [1], "item": ["x"]}))}
        )
        assert self.of(codec, value) == "column at exists 0 times in id, item, wanted once"

    @pytest.mark.parametrize(
        ("column", "why"),
        [
            ({"id": ["1"]}, "column id is string, its configured type is int64"),
            ({"id": [1.0]}, "column id is double, its configured type is int64"),
            ({"id": pa.array([2**63], pa.uint64())}, "column id cannot be converted to int64"),
            ({"price": [True]}, "column price is bool, its configured type is double"),
            ({"tags": ["t"]}, "column tags is string, its configured type is list"),
            ({"tags": [[1]]}, "column tags is list<item: int64>, its configured type is list<item: string>"),
        ],
    )
    def test_a_packed_column_of_another_type(self, codec, column, why):
        value = encode(load_schema("event_block"), {"rows": 1, "columns": pack(batch([5], **column))})
        assert why in self.of(codec, value)

    def test_a_null_key_names_its_column(self, codec):
        assert self.of(codec, event(codec, 900, item=None)) == "join key column item is null"

    def test_a_null_partition_column_names_its_column(self, log):
        codec = EventCodec(events(key=["id"], partition_by=["item"]), "impressions", log)
        assert self.of(codec, event(codec, 900, item=None)) == "join key column item is null"

    def test_null_keys_and_times_inside_a_packed_block_set_only_their_rows_aside(self, codec):
        packed = batch([5, 900, None, 6, 800], id=[1, None, 3, 4, None], item=["a", "b", "c", "d", None])
        decoded = decode(codec, [codec.encode_block(packed)])
        assert (decoded.block.rows.tolist(), maxima(decoded), decoded.max_event_time_ms) == ([0, 3], [5, 6], 6)
        assert [(f["row"], f["reason"], f["event_at"], f["detail"]) for f in letters(decoded)] == [
            (1, "undecodable", 900, "join key column id is null"),
            (2, "undecodable", None, "event time column at is null"),
            (4, "undecodable", 800, "join key column id is null"),
        ]

    def test_a_packed_column_with_a_name_that_is_not_utf8(self, codec):
        packed = pack(batch([5], note=["x"])).replace(b"note", b"n\xd1te")
        value = encode(load_schema("event_block"), {"rows": 1, "columns": packed})
        assert "columns are not an arrow stream" in self.of(codec, value)

    def test_no_invalid_record_stops_decoding(self, codec):
        seed = random.Random(7)
        good = [event(codec, 5, tags=["a"], price=1.5), codec.encode_block(batch([1, 2, 3])), codec.encode_heartbeat(9)]
        poison = []
        for _ in range(600):
            value = bytearray(seed.choice(good))
            for _ in range(seed.randint(1, 3)):
                value[seed.randrange(len(value))] = seed.randrange(256)
            poison.append(bytes(value[: seed.randint(len(value) // 2, len(value))]))
        decoded = decode(codec, poison)
        assert decoded.block.next_offset == 600
        assert len({f["offset"] for f in letters(decoded)}) > 300

    def test_dead_letters_are_in_log_order(self, codec):
        values = [codec.encode_block(batch([-1, 5, -2])), b"rubbish", event(codec, -3), codec.encode_heartbeat(-4)]
        found = [(f["offset"], f["row"]) for f in letters(decode(codec, values))]
        assert found == [(0, 0), (0, 2), (1, 0), (2, 0), (3, 0)]


class TestWriters:
    def test_events_of_an_older_configuration_are_read_by_a_newer_one_and_back(self, log):
        old = EventCodec(events({"id": "int", "item": "string", "gone": "int"}), "impressions", log)
        new = EventCodec(events({"id": "int", "item": "string", "added": "floats"}), "impressions", log)
        values = [
            old.encode_event(5, {"id": 1, "item": "x", "gone": 3}),
            new.encode_event(6, {"id": 2, "item": "y", "added": [1.5]}),
        ]
        assert decode(new, values).block.columns.to_pylist() == [
            {"id": 1, "item": "x", "added": None},
            {"id": 2, "item": "y", "added": [1.5]},
        ]
        assert decode(old, values).block.columns.to_pylist() == [
            {"id": 1, "item": "x", "gone": 3},
            {"id": 2, "item": "y", "gone": None},
        ]

    def test_a_writer_schema_that_is_registered_later_is_found(self, codec, log):
        new = EventCodec(events({"id": "int", "item": "string"}), "impressions", log)
        assert letters(decode(codec, [frame(new.schema.id, b"")]))[0]["reason"] == "undecodable"
        assert len(decode(codec, [new.encode_event(5, {"id": 1, "item": "x"})]).block) == 1

    def test_a_column_that_changed_from_text_to_number_is_undecodable(self, log):
        old = EventCodec(events({"id": "int", "item": "string", "x": "string"}), "impressions", log)
        new = EventCodec(events({"id": "int", "item": "string", "x": "int"}), "impressions", log)
        (letter,) = letters(decode(new, [old.encode_event(5, {"id": 1, "item": "x", "x": "7"})]))
        assert letter["reason"] == "undecodable"

    def test_a_schema_is_registered_once(self, log, codec):
        event(codec, 5)
        event(codec, 6)
        EventCodec(events(), "impressions", log).encode_event(7, {"id": 1, "item": "x"})
        assert log.end_offset(SCHEMAS_TOPIC, 0) == 1

    def test_a_click_in_the_impressions_is_undecodable(self, codec, log):
        clicks = EventCodec(events(), "clicks", log)
        (letter,) = letters(decode(codec, [clicks.encode_event(5, {"id": 1, "item": "x"})]))
        assert letter["detail"].endswith("is of clicks, this topic holds impressions")

    def test_a_foreign_writer_may_use_its_own_names_ids_and_microseconds(self, codec, log):
        at = {"type": "long", "logicalType": "timestamp-micros"}
        fields = [{"name": "item", "type": "string"}, {"name": "at", "type": at}, {"name": "id", "type": "int"}]
        document = {"type": "record", "name": "Shown", "namespace": "com.acme", "fields": fields}
        schema = SchemaRegistry(log).register("impressions", document, schema_id=12)
        body = encode(schema, {"item": "x", "at": 5_999, "id": 3})[5:]
        block = decode(codec, [frame(12, body)]).block
        assert (block.at_ms.tolist(), block.columns.column("id").to_pylist()) == ([5], [3])

    def test_an_id_cannot_name_two_schemas(self, log):
        registry = SchemaRegistry(log)
        registry.register("impressions", event_document("impressions", {"id": "int"}), schema_id=12)
        registry.register("impressions", event_document("impressions", {"id": "int"}), schema_id=12)
        with pytest.raises(LogError, match="schema id 12"):
            registry.register("impressions", event_document("impressions", {"id": "string"}), schema_id=12)
        assert log.end_offset(SCHEMAS_TOPIC, 0) == 1

    @pytest.mark.parametrize(("kind", "at"), [(["null", "long"], None), ("string", "noon"), ("double", 1.5)])
    def test_a_foreign_event_without_an_integer_time_is_undecodable(self, codec, log, kind, at):
        fields = [{"name": "at", "type": kind}, {"name": "id", "type": "int"}, {"name": "item", "type": "string"}]
        schema = SchemaRegistry(log).register("impressions", {"type": "record", "name": "Shown", "fields": fields})
        (letter,) = letters(decode(codec, [encode(schema, {"at": at, "id": 3, "item": "x"})]))
        assert letter["reason"] == "undecodable"

    def test_a_missing_schema_is_looked_up_once_per_run(self, codec, log, monkeypatch):
        lookups = []
        topics = log.topics
        monkeypatch.setattr(log, "topics", lambda: lookups.append(1) or topics())
        fields = [{"name": "at", "type": "long"}, {"name": "id", "type": "long"}, {"name": "item", "type": "string"}]
        document = {"type": "record", "name": "Shown", "fields": fields}
        value = encode(parse_schema(document), {"at": 5, "id": 3, "item": "x"})
        decoded = decode(codec, [value] * 100)
        runs = 2  # decoded both ways
        assert (len(decoded.block), len(letters(decoded)), len(lookups)) == (0, 100, runs)
        SchemaRegistry(log).register("impressions", document)
        assert len(decode(codec, [value] * 100).block) == 100

    def test_an_unreadable_schema_is_named_and_other_events_are_decoded(self, codec, log):
        log.create_topic(SCHEMAS_TOPIC, 1)
        log.append(
            SCHEMAS_TOPIC, 0, [b"{", b"[]", json.dumps({"id": 1, "subject": "impressions", "schema": "long"}).encode()]
        )
        decoded = decode(codec, [event(codec, 5), frame(1, b"x")])
        assert len(decoded.block) == 1
        (letter,) = letters(decoded)
        assert "record schemas/0/2 is not a schema" in letter["detail"]

    @pytest.mark.parametrize(
        ("values", "why"),
        [
            ({"id": "1"}, "does not fit"),
            ({"tags": "t"}, "does not fit"),
            ({"id": 2**63}, "does not fit"),
            ({"colour": "red"}, "no column colour"),
        ],
    )
    def test_an_event_that_does_not_fit_is_refused_when_written(self, codec, values, why):
        with pytest.raises(InputError, match=why):
            event(codec, 5, **values)

    def test_a_block_that_does_not_fit_is_refused_when_written(self, codec):
        with pytest.raises(InputError, match="column at exists 0 times"):
            codec.encode_block(pa.record_batch({"id": [1]}))
        with pytest.raises(InputError, match="column item is int64"):
            codec.encode_block(batch([5], item=[1]))

    @pytest.mark.parametrize("name", ["at", "user id", "1st", "größe"])
    def test_a_column_name_that_avro_does_not_allow_is_a_configuration_error(self, log, name):
        with pytest.raises(ValidationError, match="a column cannot be called"):
            EventCodec(events({**COLUMNS, name: "int"}), "impressions", log)


def test_an_event_schema_has_the_templates_fields_then_the_columns():
    schema = parse_schema(event_document("clicks", {"id": "int", "tags": "floats"}))
    assert [field["name"] for field in schema.document["fields"]] == ["at", "id", "tags"]
