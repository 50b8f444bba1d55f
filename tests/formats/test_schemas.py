"""Schemas and frames: golden ids and bytes, and the evolution of single events."""

import hashlib
import json

import pytest

from pipeline.errors import DamagedError
from pipeline.formats.schemas import (
    canonical,
    decode,
    decode_body,
    encode,
    frame,
    load_schema,
    parse_schema,
    schema_id,
    unframe,
)
from pipeline.logs.events.event_columns import event_document

# Every stored record contains a schema id: if one changes, old records cannot be read any more. Files of archives
# contain their schema instead.
IDS = {
    "impression": 26185096,
    "click": 36674741,
    "event_block": 229384522,
    "heartbeat": 608375530,
    "sample_block": 967253959,
    "archive_record": 1863734038,
}
COLUMNS = {"id": "int", "item": "string", "tags": "strings", "price": "float", "seen": "bool"}
EVENT = {"at": 1_700_000_000_000, "id": 7, "item": "é", "tags": ["a", "b"], "price": 1.5, "seen": None}


@pytest.mark.parametrize("name", IDS)
def test_schema_ids_never_change(name):
    assert load_schema(name).id == IDS[name]
    assert load_schema(name).name == name


def test_an_id_is_31_bits_of_the_sha256_of_the_canonical_json():
    document = load_schema("heartbeat").document
    text = (
        '{"fields":[{"name":"at","type":{"logicalType":"timestamp-millis","type":"long"}}],'
        '"name":"heartbeat","namespace":"springtide","type":"record"}'
    )
    assert canonical(document) == text
    assert schema_id(document) == int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) & 0x7FFFFFFF


def test_a_schemas_documentation_does_not_change_its_id():
    document = json.loads(json.dumps(load_schema("event_block").document))
    document["doc"] = "another text"
    document["fields"][0].pop("doc")
    assert schema_id(document) == IDS["event_block"]


def test_golden_bytes_of_a_heartbeat():
    assert encode(load_schema("heartbeat"), {"at": 1_700_000_000_000}).hex() == "00244312ea80a0abfef962"


def test_golden_id_and_bytes_of_an_event_of_a_configuration():
    schema = parse_schema(event_document("impressions", COLUMNS))
    assert schema.id == 753827208
    value = encode(schema, EVENT)
    assert value.hex() == "002cee7d8880a0abfef962020e0204c3a90204026102620002000000000000f83f00"
    assert decode(schema, value) == EVENT


def test_frame_and_unframe_are_inverse():
    found, body = unframe(frame(0x7FFFFFFF, b"body"))
    assert (found, bytes(body)) == (0x7FFFFFFF, b"body")
    assert (unframe(frame(0, b""))[0], len(unframe(frame(0, b""))[1])) == (0, 0)


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\0", b"\1\0\0\0\0body"])
def test_a_value_without_a_frame_is_damaged(value):
    with pytest.raises(DamagedError, match="wanted 0 and a schema id"):
        unframe(value)


def test_a_value_of_another_schema_is_refused_with_both_ids():
    value = encode(load_schema("heartbeat"), {"at": 1})
    with pytest.raises(DamagedError, match=f"schema id {IDS['heartbeat']}, event_block has {IDS['event_block']}"):
        decode(load_schema("event_block"), value)


def test_a_value_cut_anywhere_is_damaged():
    schema = parse_schema(event_document("impressions", COLUMNS))
    value = encode(schema, EVENT)
    for length in range(5, len(value)):
        with pytest.raises(DamagedError):
            decode(schema, value[:length])


def test_trailing_bytes_are_damage():
    value = encode(load_schema("heartbeat"), {"at": 1})
    with pytest.raises(DamagedError, match="ends after 1 of 2 bytes"):
        decode(load_schema("heartbeat"), value + b"\0")


@pytest.mark.parametrize(
    "document", ["long", ["null", "long"], {"type": "enum"}, {"type": "record", "name": "r"}, None]
)
def test_other_documents_than_record_schemas_are_refused(document):
    with pytest.raises(ValueError, match="not an avro record"):
        parse_schema(document)


class TestEvolution:
    def read(self, written: dict[str, str], wanted: dict[str, str], event: dict) -> dict:
        writer = parse_schema(event_document("clicks", written))
        reader = parse_schema(event_document("clicks", wanted))
        return decode_body(writer, unframe(encode(writer, event))[1], reader)

    def test_a_field_that_was_added_is_null_in_older_events(self):
        found = self.read({"id": "int"}, {"new": "strings", "id": "int"}, {"at": 1, "id": 2})
        assert found == {"at": 1, "new": None, "id": 2}

    def test_a_field_that_was_removed_is_left_out_of_older_events(self):
        found = self.read({"id": "int", "old": "floats"}, {"id": "int"}, {"at": 1, "id": 2, "old": [1.0, 2.0]})
        assert found == {"at": 1, "id": 2}

    def test_an_int_that_became_a_float_is_widened(self):
        assert self.read({"x": "int"}, {"x": "float"}, {"at": 1, "x": 3}) == {"at": 1, "x": 3.0}

    def test_a_string_that_became_an_int_is_refused(self):
        with pytest.raises(DamagedError):
            self.read({"x": "string"}, {"x": "int"}, {"at": 1, "x": "3"})
