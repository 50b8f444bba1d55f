"""JSON events beside Avro: typed by the configuration, set aside with their bytes, mixed with framed records."""

import json
from contextlib import closing

import pyarrow as pa
import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.ingest.event_writer import append_heartbeat
from pipeline.ingest.replay import plan_replay, replay
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import read_dead_letters
from pipeline.logs.interface.log import read_to_end
from pipeline.logs.open import open_log
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.samples.run.in_process import run_samples
from tests.logs.events.test_events import COLUMNS, NOW, batch, both_ways, decode, event, events, letters, records
from tests.support.manual_clock import ManualClock


def codec_for(tmp_path, **impressions):
    found = events()
    columns = found.impressions.model_copy(update={"encoding": "json", **impressions})
    return EventCodec(
        found.model_copy(update={"impressions": columns}), "impressions", SqliteLog(tmp_path, ManualClock(NOW))
    )


@pytest.fixture
def codec(tmp_path):
    return codec_for(tmp_path)


def rows_of(decoded):
    at = decoded.block.at_ms.tolist()
    return [{"at": time, **row} for time, row in zip(at, decoded.block.columns.to_pylist(), strict=True)]


FULL = {"at": 10, "id": 5, "item": "é", "price": 2.5, "seen": True, "tags": ["a", "b"]}
NULL = dict.fromkeys(COLUMNS)


def test_an_object_becomes_an_event_with_the_configured_types(codec):
    values = [
        json.dumps(FULL).encode(),
        b' {"item": "x", "extra": {"deep": [1]}, "id": 1, "at": 20}\n',
        b'{"at": 30, "id": 1.0, "item": "x", "price": 3, "tags": [], "seen": null}',
    ]
    decoded = decode(codec, values)
    assert letters(decoded) == []
    assert rows_of(decoded) == [
        FULL,
        {**NULL, "at": 20, "id": 1, "item": "x"},
        {**NULL, "at": 30, "id": 1, "item": "x", "price": 3.0, "tags": []},
    ]


@pytest.mark.parametrize(
    ("unit", "given", "wanted_ms"),
    [
        ("s", 12, 12_000),
        ("s", 1.5, 1_500),
        ("ms", 12, 12),
        ("us", 12_999, 12),
        ("iso", "1970-01-01T00:00:07.5Z", 7_500),
    ],
)
def test_the_time_has_the_configured_name_and_unit(tmp_path, unit, given, wanted_ms):
    codec = codec_for(tmp_path, time="shown", time_unit=unit)
    decoded = decode(codec, [json.dumps({"shown": given, "at": 99, "id": 1, "item": "x"}).encode()])
    assert (decoded.block.at_ms.tolist(), letters(decoded)) == ([wanted_ms], [])


def test_unsigned_integers_have_all_64_bits(tmp_path):
    codec = codec_for(tmp_path, columns={"id": "int", "item": "string", "hash": "uint", "hashes": "uints"})
    event = {"at": 1, "id": 1, "item": "x", "hash": 2**64 - 1, "hashes": [0, 2**63]}
    decoded = decode(codec, [json.dumps(event).encode(), json.dumps(event | {"hash": -1}).encode()])
    assert rows_of(decoded) == [event]
    assert "column hash is -1" in letters(decoded)[0]["detail"]


BAD = {
    b"null": "a JSON null, wanted an object",
    b"[]": "a JSON array, wanted an object",
    b"7": "a JSON number, wanted an object",
    b'"text"': "a JSON string, wanted an object",
    b"": "not JSON",
    b"\xff\xfe": "not JSON",
    b'{"at": 1, "id": 1, "item": "x"': "not JSON",
    b'{"at": 1, "id": 1, "item": "x"} {}': "not JSON",
    b'{"at": NaN, "id": 1, "item": "x"}': "not JSON",
    b'{"id": 1, "item": "x"}': "column at is empty",
    b'{"at": null, "id": 1, "item": "x"}': "column at is empty",
    b'{"at": "noon", "id": 1, "item": "x"}': 'column at is "noon"',
    b'{"at": true, "id": 1, "item": "x"}': "column at is true",
    b'{"at": 1e300, "id": 1, "item": "x"}': "column at is 1e+300",
    b'{"at": 1, "id": "1", "item": "x"}': 'column id is "1", wanted int64',
    b'{"at": 1, "id": 1.5, "item": "x"}': "column id is 1.5, wanted int64",
    b'{"at": 1, "id": 9223372036854775808, "item": "x"}': "column id is 9223372036854775808",
    b'{"at": 1, "id": 1, "item": 7}': "column item is 7, wanted string",
    b'{"at": 1, "id": 1, "item": "x", "tags": "a"}': 'column tags is "a"',
    b'{"at": 1, "id": 1, "item": "x", "tags": [1]}': "column tags is [1]",
    b'{"at": 1, "id": 1, "item": "x", "seen": 1}': "column seen is 1, wanted bool",
    b'{"at": 1, "id": 1, "id": 2, "item": "x"}': "column id is there twice",
    b'{"at": 1, "item": "x"}': "join key column id is null",
    b'{"at": 1, "id": null, "item": "x"}': "join key column id is null",
    b"[" * 100_000: "not JSON",
}


@pytest.mark.parametrize("value", BAD, ids=lambda value: repr(value[:40]))
def test_a_value_that_is_no_event_is_set_aside_with_its_bytes_and_costs_no_other(codec, value):
    good = json.dumps(FULL).encode()
    (letter,) = letters(decoded := decode(codec, [good, value, good]))
    assert (letter["reason"], letter["original"], letter["offset"]) == ("undecodable", value, 1)
    assert BAD[value] in letter["detail"]
    assert rows_of(decoded) == [FULL, FULL]


def test_impossible_times_are_out_of_range(codec):
    decoded = decode(codec, [b'{"at": -1, "id": 1, "item": "x"}', b'{"at": 99999999999, "id": 1, "item": "x"}'])
    assert [letter["reason"] for letter in letters(decoded)] == ["time_out_of_range"] * 2


def test_framed_records_are_read_in_the_same_topic_in_log_order(codec):
    values = [
        event(codec, 1),
        b'{"at": 2, "id": 1, "item": "x"}',
        b'{"at": 3, "id": 1, "item": "x"}',
        codec.encode_heartbeat(40_000),
        b"null",
        b'{"at": 4, "id": 1, "item": "x"}',
        codec.encode_block(batch([5, 6])),
        b'{"at": 7, "id": 1, "item": "x"}',
        b"\0rubbish",
        event(codec, 8),
    ]
    decoded = decode(codec, values)
    assert decoded.block.at_ms.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert decoded.block.offsets.tolist() == [0, 1, 2, 5, 6, 6, 7, 9]
    assert [letter["offset"] for letter in letters(decoded)] == [4, 8]
    for size in (1, 2, 3, 7):
        runs, maximum = [], None
        for start in range(0, len(values), size):
            run = both_ways(codec, records(values)[start : start + size], maximum)
            maximum = run.max_event_time_ms
            runs += rows_of(run)
        assert (runs, maximum) == (rows_of(decoded), decoded.max_event_time_ms)


def test_without_the_setting_json_is_a_dead_letter_that_names_it(tmp_path):
    codec = EventCodec(events(), "impressions", SqliteLog(tmp_path, ManualClock(NOW)))
    (letter,) = letters(decode(codec, [b'{"at": 1, "id": 1, "item": "x"}']))
    assert letter["detail"].endswith("hint: events.impressions.encoding = 'json'")


@pytest.fixture
def shop(tmp_path):
    kinds = {
        "impressions": {"encoding": "json", "time_unit": "s", "columns": {"id": "int", "item": "string"}},
        "clicks": {"encoding": "json", "time": "when", "time_unit": "iso", "columns": {"id": "int"}},
    }
    document = {
        "events": {"key": ["id"], "skew_s": 1e9, **kinds},
        "samples": {"window_s": 10, "horizon_s": 20, "remember_s": 5},
        "fields": [{"name": "item", "columns": ["item"]}],
    }
    return Project(tmp_path, parse_config(document), ManualClock(10_000_000))


def letters_in(log):
    found = [record for part in read_to_end(log, "dead-letters", 0) for record in part]
    return read_dead_letters(found).table.to_pylist()


def test_json_events_are_joined_and_dead_letters_of_the_join_keep_their_bytes(shop):
    with closing(open_log(shop)) as log:
        log.append("impressions", 0, [json.dumps({"at": 100 + i, "id": i, "item": "a"}).encode() for i in range(20)])
        click = b'{"when": "1970-01-01T00:01:41Z", "id": 1}'
        orphan = b'{"when": "1970-01-01T00:01:41Z", "id": 99}'
        log.append("clicks", 0, [click, orphan, click])
        append_heartbeat(shop, log, 5_000_000)
        report = run_samples(shop, log, until_end=True)
        assert report.samples == {"negative": 19, "positive": 1}
        assert {letter["reason"]: letter["original"] for letter in letters_in(log)} == {
            "orphan_click": orphan,
            "duplicate_click": click,
        }


def test_a_replayed_json_event_keeps_its_bytes_and_unit(shop):
    with closing(open_log(shop)) as log:
        future = b'{"at": 2000000000, "id": 1, "item": "a"}'
        packed = pa.record_batch({"at": pa.array([2_000_000_000_000]), "id": [2], "item": ["b"]})
        log.append("impressions", 0, [future, EventCodec.of(shop, "impressions", log).encode_block(packed), b"null"])
        run_samples(shop, log, until_end=True)
        assert [letter["reason"] for letter in letters_in(log)] == ["time_out_of_range"] * 2 + ["undecodable"]
        replay(shop, log, plan_replay(shop, log))
        again, single, null = [record.value for record in log.read("impressions", 0, 3)]
        assert (again, null) == (future, b"null")
        codec = EventCodec.of(shop, "impressions", log)
        assert single == codec.encode_event(2_000_000_000_000, {"id": 2, "item": "b"})
