"""Events made from `schemas/events.md` alone are read as written."""

import io
import re
import shutil
import tomllib
from contextlib import closing
from pathlib import Path

import fastavro
import pytest

import pipeline.cli
from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.configuration.streams.events import Registry
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.dead_letters import read_dead_letters
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import Record, read_to_end
from pipeline.logs.open import open_log
from pipeline.samples.run.in_process import run_samples
from tests.support.page import blocks_of_bytes, page, rows_of_table, run

PAGE = page("events.md")
STARTER = Path(pipeline.cli.__file__).parent / "starter"
START = 1_767_225_600_000
APPENDED = START + 86_400_000


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The folder of a project that `springtide init` wrote; it is the working directory."""
    shutil.copytree(STARTER, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def log(shop):
    with closing(open_log(Project.open(shop))) as opened:
        yield opened


@pytest.fixture
def decode(shop, log):
    """Decodes values of the impressions topic: the events as rows, and the dead letters."""
    codec = EventCodec(Project.open(shop).config.events, "impressions", log)

    def call(*values):
        run = codec.decode([Record(n, APPENDED, value) for n, value in enumerate(values)], "impressions", 0, None)
        rows = [
            {"at": at, **row} for at, row in zip(run.block.at_ms.tolist(), run.block.columns.to_pylist(), strict=True)
        ]
        return rows, [(letter["reason"], letter["detail"]) for letter in run.dead.table.to_pylist()]

    return call


@pytest.fixture(scope="module")
def producer():
    return run(PAGE, "producer", "packed")


def whole(event):
    return {"impression_id": None, "user": None, "item": None, "position": None, **event}


def test_the_producer_writes_to_the_embedded_log_what_becomes_samples(shop):
    run(PAGE, "producer", "embedded")
    project = Project.open(shop)
    with closing(open_log(project)) as log:
        run_samples(project, log, until_end=True)
        blocks = [decode_sample_block(r.value).batch for part in read_to_end(log, "samples", 0) for r in part]
        dead = [record for part in read_to_end(log, "dead-letters", 0) for record in part]
    kinds = [kind for batch in blocks for kind in batch.column("kind").to_pylist()]
    assert (len(kinds), kinds.count("positive"), dead) == (100, 10, [])


def test_the_schemas_of_the_producer_are_those_of_the_configuration(shop, log, producer):
    events = Project.open(shop).config.events
    for kind, name in (("impressions", "IMPRESSION"), ("clicks", "CLICK")):
        assert producer["id_of"](producer[name]) == EventCodec(events, kind, log).schema.id


def test_the_bytes_of_an_event_are_those_of_the_table(decode):
    value, heartbeat = blocks_of_bytes(PAGE)
    rows = rows_of_table(PAGE, "| bytes | hex | holds |")
    assert bytes.fromhex("".join(hexadecimal for _, hexadecimal, _ in rows)) == value
    event = {"at": START, "impression_id": "imp-1", "user": "user-7", "item": None, "position": 3}
    assert decode(value, heartbeat) == ([event], [])


def test_the_heartbeat_moves_the_watermark(shop, log):
    _, heartbeat = blocks_of_bytes(PAGE)
    codec = EventCodec(Project.open(shop).config.events, "clicks", log)
    assert codec.decode([Record(0, APPENDED, heartbeat)], "clicks", 0, None).block.watermark_ms == START + 7_200_000
    assert codec.encode_heartbeat(START + 7_200_000) == heartbeat


def test_a_packed_record_holds_the_same_events_as_single_ones(decode, producer):
    shown = producer["shown"]
    singles = [producer["record"](producer["IMPRESSION"], event) for event in shown]
    assert decode(producer["block"](shown)) == decode(*singles) == ([whole(event) for event in shown], [])


def test_the_ids_of_the_table_are_those_of_the_schemas(producer):
    listed = rows_of_table(PAGE, "| schema id | in hex | kind |")[:2]
    kinds = {int(number): hexadecimal for number, hexadecimal, _ in listed}
    for schema in (producer["HEARTBEAT"], producer["BLOCK"]):
        found = producer["id_of"](schema)
        assert kinds.pop(found) == found.to_bytes(4, "big").hex(" ")
    assert not kinds


def framed(number, schema, event):
    out = io.BytesIO(b"\0" + number.to_bytes(4, "big"))
    out.seek(5)
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), event)
    return out.getvalue()


OTHER = {
    "type": "record",
    "name": "Shown",
    "doc": "of another team",
    "fields": [
        {"name": "position", "type": "int"},
        {"name": "extra", "type": {"type": "map", "values": "bytes"}},
        {"name": "impression_id", "type": ["string", "null"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}


def test_any_record_with_these_fields_and_any_id_is_read_once_it_is_registered(log, decode, producer):
    log.append("schemas", 0, [producer["registration"]("impressions", OTHER).replace(b'"id": ', b'"id": 7, "was": ')])
    value = framed(7, OTHER, {"position": 4, "extra": {"a": b"b"}, "impression_id": "imp-9", "at": START * 1000 + 1})
    assert decode(value) == ([whole({"at": START, "impression_id": "imp-9", "position": 4})], [])


def test_registering_twice_is_harmless(log, decode, producer):
    log.append("schemas", 0, [producer["registration"]("impressions", OTHER)] * 2)
    event = {"position": 4, "extra": {}, "impression_id": "imp-9", "at": START * 1000}
    value = framed(producer["id_of"](OTHER), OTHER, event)
    assert decode(value)[1] == []


def test_the_json_event_of_the_page_is_read(shop, log):
    (value,) = re.findall(r"<!-- event: json -->\n```json\n(.*?)\n```", PAGE, re.DOTALL)
    settings = tomllib.loads(re.findall(r"## JSON events.*?```toml\n(.*?)```", PAGE, re.DOTALL)[0])
    document = tomllib.loads((shop / "springtide.toml").read_text(encoding="utf-8"))
    document["events"]["impressions"] |= settings["events"]["impressions"]
    codec = EventCodec(parse_config(document).events, "impressions", log)
    found = codec.decode([Record(0, APPENDED, value.encode())], "impressions", 0, None)
    assert found.dead.table.num_rows == 0
    event = {"impression_id": "imp-1", "user": "user-7", "item": None, "position": 3}
    assert (found.block.at_ms.tolist(), found.block.columns.to_pylist()) == ([START + 250], [event])


def test_the_settings_of_the_registry_are_valid():
    (text,) = re.findall(r"## A Confluent.*?```toml\n(.*?)```", PAGE, re.DOTALL)
    found = Registry.model_validate(tomllib.loads(text)["events"]["registry"])
    assert (found.user, found.password.file) == ("springtide", "registry-password")


def container(producer, event):
    out = io.BytesIO()
    fastavro.writer(out, fastavro.parse_schema(producer["IMPRESSION"]), [event])
    return out.getvalue()


def test_what_the_page_lists_as_refused_is_a_dead_letter_with_that_reason(log, decode, producer):
    schema, event = producer["IMPRESSION"], {"at": START, "impression_id": "imp-1"}
    log.append("schemas", 0, producer["schemas"])
    good = producer["record"](schema, event)
    refused = [
        [b'{"at": 1, "impression_id": "imp-1"}', good[5:], container(producer, event)],
        [framed(7, schema, event)],
        [producer["record"](producer["CLICK"], event)],
        [good[:-1], good + b"\0"],
        [producer["record"](schema, {"at": START})],
        [producer["record"](schema, event | {"at": -1}), producer["record"](schema, event | {"at": START * 1000})],
    ]
    listed = rows_of_table(PAGE, "| what was written | reason | detail |")
    for values, (_, reason, detail) in zip(refused, listed, strict=True):
        letters = [letter for value in values for letter in decode(value)[1]]
        assert [found for found, _ in letters] == [reason] * len(values)
        wanted = [part.strip(" `…").replace("schema id 7 is of", "is of") for part in detail.split(",")]
        for _, why in letters:
            assert any(all(piece in why for piece in part.split("…")) for part in wanted), (why, wanted)
        assert decode(good)[1] == []


def test_a_dead_letter_has_the_headers_of_the_page(shop, producer):
    project = Project.open(shop)
    with closing(open_log(project)) as log:
        log.append("impressions", 0, [b"rubbish", producer["record"](producer["HEARTBEAT"], {"at": START})])
        run_samples(project, log, until_end=True)
        (record,) = [record for part in read_to_end(log, "dead-letters", 0) for record in part]
    assert record.value == b"rubbish"
    assert read_dead_letters([record]).table.num_rows == 1
    assert all(f"`{name}`" in PAGE for name in record.headers), record.headers
