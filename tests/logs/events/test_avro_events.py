"""Avro bodies decoded natively against fastavro: the same columns, and rows that fastavro rejects stay undecoded."""

import random

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import DamagedError, InputError
from pipeline.formats.schemas import decode_body, unframe
from pipeline.logs.events.avro_events import decode_events
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.event_columns import arrow_schema
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from tests.logs.events.test_events import both_ways, events, records
from tests.support.manual_clock import ManualClock

COLUMNS = {
    "id": "int",
    "item": "string",
    "price": "float",
    "seen": "bool",
    "tags": "strings",
    "places": "ints",
    "scores": "floats",
}
ARROW = arrow_schema(COLUMNS)
WORDS = ["", "a", "é", "€uro", "\U0001f600", "word" * 30, "\0"]


@pytest.fixture
def codec(tmp_path):
    return EventCodec(events(COLUMNS), "impressions", SqliteLog(tmp_path, ManualClock(1_000_000)))


def some_event(chance):
    whole = [0, -1, 1, 63, 64, -64, -65, 2**31, -(2**63), 2**63 - 1]
    values = {
        "id": chance.choice(whole),
        "item": chance.choice(WORDS),
        "price": chance.choice([0.0, -0.0, 1.5, float("inf"), -1e300]),
        "seen": chance.random() < 0.5,
        "tags": [chance.choice(WORDS) for _ in range(chance.randrange(4))],
        "places": [chance.choice(whole) for _ in range(chance.randrange(4))],
        "scores": [chance.random() for _ in range(chance.randrange(4))],
    }
    return chance.randrange(1_000_000), {n: v if chance.random() < 0.8 else None for n, v in values.items()}


def decoded(codec, values):
    return decode_events(pa.array(values, pa.binary()), codec.schema.id, ARROW)


def by_fastavro(codec, value):
    """The event; None if its frame or body is invalid."""
    try:
        found, body = unframe(value)
        return decode_body(codec.schema, body) if found == codec.schema.id else None
    except DamagedError:
        return None


def test_events_of_every_type_are_decoded_as_they_were_encoded(codec):
    chance = random.Random(1)
    wanted = [some_event(chance) for _ in range(2_000)]
    found = decoded(codec, [codec.encode_event(at, values) for at, values in wanted])
    assert found.times.tolist() == [at for at, _ in wanted]
    assert found.columns.schema == ARROW
    found.columns.validate(full=True)
    assert found.columns.to_pylist() == [values for _, values in wanted]
    assert len(found.undecoded) == 0


def test_a_slice_of_an_array_decodes_as_its_rows(codec):
    values = pa.array([codec.encode_event(n, {"id": n, "item": str(n)}) for n in range(10)], pa.binary())
    found = decode_events(values[3:7], codec.schema.id, ARROW)
    assert found.times.tolist() == [3, 4, 5, 6]
    assert found.columns.column("item").to_pylist() == ["3", "4", "5", "6"]


def test_no_events_give_no_rows(codec):
    found = decoded(codec, [])
    assert (len(found.times), found.columns.num_rows, len(found.undecoded)) == (0, 0, 0)
    assert found.columns.schema == ARROW


def test_changed_bytes_decode_as_with_fastavro_or_stay_undecoded(codec):
    chance = random.Random(2)
    values = []
    for _ in range(4_000):
        value = bytearray(codec.encode_event(*some_event(chance)))
        for _ in range(chance.randrange(3)):
            kind, at = chance.randrange(4), chance.randrange(len(value))
            if kind == 0:
                value[at] = chance.randrange(256)
            elif kind == 1:
                value[at] ^= 1 << chance.randrange(8)
            elif kind == 2:
                del value[at:]
            else:
                value[at:at] = chance.randbytes(chance.randrange(3))
            value = value or bytearray(b"\0")
        values.append(bytes(value))
    found = decoded(codec, values)
    found.columns.validate(full=True)
    undecoded = set(found.undecoded.tolist())
    accepted = [n for n in range(len(values)) if n not in undecoded]
    assert 1_000 < len(accepted) < 3_500
    events_of = [by_fastavro(codec, values[n]) for n in accepted]
    rows = [{"at": at, **row} for at, row in zip(found.times.tolist(), found.columns.to_pylist(), strict=True)]
    assert repr(rows) == repr(events_of)  # repr: a changed float may be NaN
    # Some undecoded rows are valid for fastavro, in forms that the codec does not write.
    valid = [n for n in undecoded if by_fastavro(codec, values[n]) is not None]
    assert len(valid) < len(undecoded) / 4


def test_a_run_with_changed_bytes_decodes_as_its_single_records_do(codec):
    chance = random.Random(3)
    for _ in range(60):
        values = [codec.encode_event(*some_event(chance)) for _ in range(chance.randrange(1, 12))]
        values.insert(chance.randrange(len(values)), codec.encode_heartbeat(chance.randrange(1_000_000)))
        packed = pa.record_batch({"at": pa.array([5, None]), "id": [1, 2], "item": ["x", None]})
        values.insert(chance.randrange(len(values)), codec.encode_block(packed))
        for n in range(len(values)):
            if chance.random() < 0.3:
                changed = bytearray(values[n])
                changed[chance.randrange(len(changed))] = chance.randrange(256)
                values[n] = bytes(changed)
        both_ways(codec, records(values, first=chance.randrange(100), step=chance.randrange(1, 4)), None)


BAD_TEXT = [
    b"\x80",
    b"\xc3",
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xff",
]


@pytest.mark.parametrize("text", [*BAD_TEXT, *(b"a" * 9 + bad + b"b" * 9 for bad in BAD_TEXT)])
def test_text_that_is_not_utf8_stays_undecoded(codec, text):
    value = codec.encode_event(1, {"id": 1, "item": "#" * len(text)}).replace(b"#" * len(text), text)
    assert decoded(codec, [value]).undecoded.tolist() == [0]
    assert by_fastavro(codec, value) is None


@pytest.mark.parametrize("text", ["\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"])
def test_text_at_the_limits_of_utf8_is_decoded(codec, text):
    found = decoded(codec, [codec.encode_event(1, {"id": 1, "item": "12345678" + text})])
    assert found.columns.column("item").to_pylist() == ["12345678" + text]


def test_invalid_arrays_are_named(codec):
    with pytest.raises(InputError, match="values: got int64, wanted binary"):
        decode_events(pa.array([1]), 1, ARROW)
    with pytest.raises(InputError, match="values: got binary, wanted binary without nulls"):
        decode_events(pa.array([None], pa.binary()), 1, ARROW)
    with pytest.raises(InputError, match="column x: got date32"):
        decode_events(pa.array([b""]), 1, pa.schema({"x": pa.date32()}))
    offsets = np.array([0, 5], np.int32)
    broken = pa.Array.from_buffers(pa.binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(b"short")])
    offsets[1] = 99
    with pytest.raises(InputError, match=r"values: .* out of bounds: 99 > 5"):
        decode_events(broken, 1, ARROW)
