"""The memory that an Arrow stream needs is bounded before it is decompressed and before columns are converted."""

import struct

import pyarrow as pa
import pytest

from pipeline.errors import DamagedError
from pipeline.formats.arrow_size import MAX_BYTES, decompressed_bytes, plain_bytes
from pipeline.formats.columns import pack, unpack
from pipeline.logs.events.event_columns import resolve_columns

NUMBERS = pa.record_batch({"at": pa.array(range(1_000), pa.int64()), "name": ["x" * 50] * 1_000})


def stream(batch, compression):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_the_claimed_size_of_a_stream_is_that_of_its_buffers(compression):
    claimed = decompressed_bytes(stream(NUMBERS, compression))
    assert 8 * 1_000 + 50 * 1_000 + 4 * 1_001 <= claimed <= 1.02 * (8 * 1_000 + 50 * 1_000 + 4 * 1_001)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_dictionaries_count(compression):
    batch = pa.record_batch({"name": pa.array(["x" * 10_000, "y" * 10_000]).dictionary_encode()})
    assert decompressed_bytes(stream(batch, compression)) > 20_000


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_buffer_that_claims_too_much_is_refused(compression):
    packed = stream(NUMBERS, compression)
    claim = struct.pack("<q", 8 * 1_000)
    assert packed.count(claim) == 1
    assert unpack(packed, 1_000).equals(NUMBERS)
    with pytest.raises(DamagedError, match=rf"columns claim \d+ bytes, allowed are {MAX_BYTES}"):
        unpack(packed.replace(claim, struct.pack("<q", 1 << 40)), 1_000)


def nulls(rows):
    return pa.record_batch({"nothing": pa.nulls(rows)})


HUGE = 1 << 28
BOMBS = {
    "nulls": pa.nulls(HUGE),
    "a list of nulls": pa.ListArray.from_arrays(pa.array([0, HUGE], pa.int32()), pa.nulls(HUGE)),
    "a fixed list of nulls": pa.FixedSizeListArray.from_arrays(pa.nulls(HUGE), HUGE),
    "a dictionary of long strings": pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["x" * 100_000]),
    "a dictionary of lists": pa.DictionaryArray.from_arrays(
        pa.array([0] * 20_000, pa.int32()), pa.array([list(range(20_000))])
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_short_column_that_is_long_when_it_is_plain_is_refused(name):
    batch = pa.record_batch({"column": BOMBS[name]})
    packed = pack(batch)
    assert len(packed) < 300_000
    with pytest.raises(DamagedError, match=rf"columns have \d+ bytes, allowed are {MAX_BYTES}"):
        unpack(packed, len(batch))


def test_views_count_what_they_show():
    shown = pa.array(["x" * 1_000] * 10).cast(pa.string_view())
    assert 10_000 <= plain_bytes(shown) < 11_000


def test_plain_columns_count_their_bytes():
    for column in (NUMBERS["at"], NUMBERS["name"], pa.array([[1, 2], None, []]), pa.array([True, None])):
        assert plain_bytes(column) <= 3 * column.nbytes + 8 * len(column)


def test_a_few_bytes_are_no_millions_of_events_without_columns():
    wanted = pa.schema([(f"c{n}", pa.string()) for n in range(40)])
    assert len(resolve_columns(nulls(1_000), wanted)) == 1_000
    with pytest.raises(DamagedError, match="lack 40 columns"):
        resolve_columns(nulls(MAX_BYTES // 320 + 1), wanted)


@pytest.mark.parametrize("length", [0, 3, 8, 50, 200, 400])
def test_a_stream_that_is_cut_off_is_damaged(length):
    with pytest.raises(DamagedError):
        unpack(pack(NUMBERS)[:length], 1_000)
