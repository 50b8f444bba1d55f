"""The records of the samples and dead-letters topics, and the names of their columns."""

import pyarrow as pa
import pytest

from pipeline.arrays.block import DEAD_LETTER_SCHEMA
from pipeline.configuration.config import Config, parse_config
from pipeline.errors import ConfigError, DamagedError
from pipeline.formats.schemas import decode, encode, load_schema
from pipeline.logs.events.dead_letters import dead_letter_records, dead_letters, read_dead_letters
from pipeline.logs.events.sample_block import SampleBlock, decode_sample_block, encode_sample_block, sample_schema
from pipeline.logs.interface.log import Record


def config(columns: dict[str, str], **samples) -> Config:
    impressions = {"columns": {"id": "string", **columns}}
    events = {"key": ["id"], "impressions": impressions, "clicks": {"columns": {"id": "string", "price": "float"}}}
    return parse_config({"events": events, "fields": [{"name": "f", "columns": ["id"]}], "samples": samples})


SAMPLE = {
    "id": "a",
    "tags": ["x", "y"],
    "impression_at": 5,
    "click_at": None,
    "label": 0.0,
    "price": 0.0,
    "weight": 1.0,
    "rate": 0.5,
    "kind": "negative",
    "negative_written": False,
    "impression_partition": 0,
    "impression_offset": 2**40,
    "impression_row": 3,
    "click_partition": None,
    "click_offset": None,
    "click_row": None,
}


def block(samples: list[dict]) -> SampleBlock:
    schema = sample_schema(config({"tags": "strings"}, labels=["label", "price"]))
    batch = pa.RecordBatch.from_pylist(samples, schema=schema)
    return SampleBlock(2, batch, {"clicks/0": 2**41, "impressions/0": 9}, {"clicks": "c", "impressions": "i"}, -7, True)


def test_a_sample_block_is_decoded_as_it_was_encoded():
    written = block([SAMPLE, {**SAMPLE, "kind": "positive", "click_at": 6, "tags": None}])
    assert decode_sample_block(encode_sample_block(written)) == written


def test_a_sample_block_without_samples_has_the_needed_offsets():
    written = block([])
    found = decode_sample_block(encode_sample_block(written))
    assert (len(found), found.needed_offsets, found.flush, found.watermark_ms) == (0, written.needed_offsets, True, -7)
    assert found.batch.schema == written.batch.schema


def test_the_columns_of_a_sample_are_raw_columns_then_system_columns():
    schema = sample_schema(config({"tags": "strings"}, labels=["label", "price"]))
    assert schema.names == list(SAMPLE)
    assert schema.field("tags").type == pa.list_(pa.string())
    assert {schema.field(n).type for n in ("label", "price", "weight", "rate")} == {pa.float32()}


@pytest.mark.parametrize("name", ["kind", "impression_at", "at", "rate", "label", "weight"])
def test_a_raw_column_called_like_a_system_column_is_refused(name):
    with pytest.raises(ConfigError, match=rf"column (cannot be called )?'?{name}\b"):
        sample_schema(config({name: "float"}))


def test_the_weight_column_may_itself_be_called_weight():
    assert sample_schema(config({"weight": "float"}, weight="weight")).names.count("weight") == 1


def test_a_label_called_like_a_system_column_is_refused():
    with pytest.raises(ConfigError, match=r"samples: label rate has the name of a column of samples"):
        sample_schema(config({}, labels=["rate"]))


def test_a_block_with_another_number_of_rows_is_damaged():
    schema = load_schema("sample_block")
    datum = {**decode(schema, encode_sample_block(block([SAMPLE]))), "rows": 2}
    with pytest.raises(DamagedError, match="columns hold 1 rows in 1 batches, wanted 2"):
        decode_sample_block(encode(schema, datum))


def test_a_block_truncated_anywhere_is_damaged():
    value = encode_sample_block(block([SAMPLE] * 3))
    for length in range(0, len(value), 7):
        with pytest.raises(DamagedError):
            decode_sample_block(value[:length])


def test_columns_that_are_not_an_arrow_stream_are_damaged():
    schema = load_schema("sample_block")
    datum = decode(schema, encode_sample_block(block([SAMPLE])))
    for columns in (b"", b"rubbish" * 50, datum["columns"][: len(datum["columns"]) // 2]):
        with pytest.raises(DamagedError, match="columns"):
            decode_sample_block(encode(schema, {**datum, "columns": columns}))


LETTER = {
    "reason": "undecodable",
    "topic": "clicks",
    "partition": 1,
    "offset": 2**40,
    "row": 5,
    "event_at": None,
    "detail": "why",
    "original": b"\0\xff",
}


def test_dead_letters_are_decoded_with_their_original_bytes():
    letters = dead_letters([LETTER, {**LETTER, "event_at": 3}])
    values, headers = dead_letter_records(letters, {"springtide.shard": "1"})
    found = read_dead_letters(map(Record, (0, 1), (5, 5), values, headers))
    assert found.table.schema == DEAD_LETTER_SCHEMA
    assert found.table.to_pylist() == [LETTER, {**LETTER, "event_at": 3}]


HEADERS = {
    "springtide.reason": "undecodable",
    "__connect.errors.topic": "clicks",
    "__connect.errors.partition": "1",
    "__connect.errors.offset": str(2**40),
    "springtide.row": "5",
    "__connect.errors.exception.message": "why",
}


def test_a_dead_letter_is_a_record_with_the_original_bytes_and_the_reason_in_headers():
    assert dead_letter_records(dead_letters([LETTER]), {}) == ([b"\0\xff"], [HEADERS])
    (_, (timed,)) = dead_letter_records(dead_letters([{**LETTER, "event_at": 3}]), {"springtide.shard": "2"})
    assert timed == {**HEADERS, "springtide.event_at": "3", "springtide.shard": "2"}


@pytest.mark.parametrize("name", HEADERS)
def test_records_that_are_not_dead_letters_are_damaged(name):
    without = {key: text for key, text in HEADERS.items() if key != name}
    with pytest.raises(DamagedError, match=f"record 7 of the dead letters has no header {name}"):
        read_dead_letters([Record(7, 0, b"", without)])


@pytest.mark.parametrize("text", ["", "x", "1.5", str(2**31), "1e3"])
def test_dead_letters_with_headers_that_are_not_numbers_are_damaged(text):
    with pytest.raises(DamagedError, match=rf"header springtide.row is '{text}', wanted int32"):
        read_dead_letters([Record(7, 0, b"", {**HEADERS, "springtide.row": text})])


def test_dead_letters_with_headers_that_are_not_text_are_damaged():
    with pytest.raises(DamagedError, match=r"header springtide.reason is '\\ud800', wanted string"):
        read_dead_letters([Record(7, 0, b"", {**HEADERS, "springtide.reason": "\ud800"})])
