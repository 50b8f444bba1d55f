"""Parquet and Avro: every type that other tools write, codecs, and damaged files, which leave nothing."""

import decimal
import io
from datetime import UTC, date, datetime

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.ingest.files.chunk import CHUNK_ROWS
from pipeline.ingest.ingest import ingest
from tests.support.world.ingest_world import ROWS, dead_in, events_in, expected, many, write

TAGS = [["a", "b"], [], ["c"]]
SIZES = [[1, 2], [], [3]]
USERS = [row["user"] for row in ROWS]
TIMES_MS = [1_000_000, 2_000_000, 3_000_000]


def dictionaries(values):
    offsets = pa.array([0, *(sum(map(len, values[: n + 1])) for n in range(len(values)))], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array([v for row in values for v in row]).dictionary_encode())


COLUMNS = {
    "string view": ("user", pa.array(USERS, pa.string_view())),
    "large string": ("user", pa.array(USERS, pa.large_string())),
    "dictionary": ("user", pa.array(USERS).dictionary_encode()),
    "dictionary of large strings": ("user", pa.array(USERS, pa.large_string()).dictionary_encode()),
    "binary": ("user", pa.array(USERS).cast(pa.binary())),
    "large binary": ("user", pa.array(USERS).cast(pa.large_binary())),
    "large list": ("tags", pa.array(TAGS, pa.large_list(pa.large_string()))),
    "list of dictionaries": ("tags", dictionaries(TAGS)),
    "list of views": ("tags", pa.array(TAGS, pa.list_(pa.string_view()))),
    "list of small integers": ("sizes", pa.array(SIZES, pa.list_(pa.int8()))),
    "list of unsigned integers": ("sizes", pa.array(SIZES, pa.list_(pa.uint64()))),
    "list of floats without fraction": ("sizes", pa.array(SIZES, pa.list_(pa.float64()))),
    "half float": ("price", pa.array([1.5, None, -2.0], pa.float32()).cast(pa.float16())),
    "decimal": ("price", pa.array([decimal.Decimal("1.50"), None, decimal.Decimal(-2)], pa.decimal128(10, 2))),
    "decimal integer": ("id", pa.array([1, 2, 3]).cast(pa.decimal128(25, 0))),
    "unsigned": ("id", pa.array([1, 2, 3], pa.uint64())),
    "float without fraction": ("id", pa.array([1.0, 2.0, 3.0])),
    "dictionary of integers": ("id", pa.array([1, 2, 3]).dictionary_encode()),
    "timestamp s": ("ts", pa.array(TIMES_MS).cast(pa.timestamp("ms")).cast(pa.timestamp("s"))),
    "timestamp ns": ("ts", pa.array(TIMES_MS).cast(pa.timestamp("ms")).cast(pa.timestamp("ns"))),
    "timestamp of a zone": ("ts", pa.array(TIMES_MS).cast(pa.timestamp("ms", "Asia/Tokyo"))),
    "decimal time": ("ts", pa.array([1000, 2000, 3000]).cast(pa.decimal128(25, 0))),
    "unsigned time": ("ts", pa.array([1000, 2000, 3000], pa.uint64())),
    "float time": ("ts", pa.array([1000.0, 2000.0, 3000.0])),
}


@pytest.mark.parametrize("what", COLUMNS)
def test_a_parquet_column_of_any_fitting_type_is_read(project, log, tmp_path, what):
    name, column = COLUMNS[what]
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, column), tmp_path / "f.parquet")
    ingest(project, log, "impressions", [tmp_path / "f.parquet"])
    assert (events_in(project, log), dead_in(log)) == (expected(ROWS), [])


@pytest.mark.parametrize("kind", [pa.list_(pa.string(), 2), pa.list_view(pa.string()), pa.large_list_view(pa.string())])
def test_lists_of_every_layout_are_read(project, log, tmp_path, kind):
    table = pa.Table.from_pylist(ROWS)
    # Arrow does not read back a null among lists of a fixed size.
    missing = ["x", "y"] if pa.types.is_fixed_size_list(kind) else None
    tags = pa.array([["a", "b"], missing, ["c", "d"]], kind)
    table = table.set_column(table.schema.get_field_index("tags"), "tags", tags)
    try:
        pq.write_table(table, tmp_path / "f.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip(f"this Arrow does not write {kind}")
    ingest(project, log, "impressions", [tmp_path / "f.parquet"])
    assert [event["tags"] for event in events_in(project, log)] == [["a", "b"], missing, ["c", "d"]]


def test_times_written_as_int96_or_dates_are_read(project, log, tmp_path):
    table = pa.Table.from_pylist(ROWS)
    for number, times in enumerate([pa.array(TIMES_MS).cast(pa.timestamp("ms")), pa.array([date(1970, 1, 2)] * 3)]):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table.set_column(0, "ts", times), path, use_deprecated_int96_timestamps=True)
        ingest(project, log, "impressions", [path])
    assert [event["at"] for event in events_in(project, log)] == [*TIMES_MS, *[86_400_000] * 3]


def test_unsigned_values_beyond_an_int_are_bad_rows(project, log, tmp_path):
    table = pa.Table.from_pylist(ROWS).set_column(1, "id", pa.array([2**63 - 1, 2**63, 2**64 - 1], pa.uint64()))
    pq.write_table(table, tmp_path / "f.parquet")
    assert ingest(project, log, "impressions", [tmp_path / "f.parquet"]).bad_rows == 2
    assert [event["id"] for event in events_in(project, log)] == [2**63 - 1]
    assert dead_in(log)[0]["detail"] == f"f.parquet line 2: column id is '{2**63}', wanted int"


def test_a_parquet_file_damaged_behind_its_first_chunk_leaves_nothing(project, log, tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.Table.from_pylist(many(2 * CHUNK_ROWS)), path, row_group_size=CHUNK_ROWS, compression="snappy")
    content, column = bytearray(path.read_bytes()), pq.ParquetFile(path).metadata.row_group(1).column(2)
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"f.parquet cannot be read"):
        ingest(project, log, "impressions", [path])
    assert log.end_offset("impressions", 0) == log.end_offset("dead-letters", 0) == 0


def avro(path, fields, rows, codec="null"):
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "event", "fields": fields}, rows, codec=codec)


FIELDS = [
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "id", "type": ["int", "double", "string"]},
    {"name": "user", "type": {"type": "enum", "name": "user", "symbols": ["ann", "bob"]}},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "seen", "type": "boolean"},
    {"name": "tags", "type": {"type": "array", "items": "bytes"}},
    {"name": "sizes", "type": {"type": "array", "items": "int"}},
]
ROW = {"ts": datetime(1970, 1, 1, 0, 0, 1, 999_999, UTC), "id": 1, "user": "ann", "price": decimal.Decimal("1.50")}
ROW |= {"seen": True, "tags": [b"a"], "sizes": [1]}


def test_avro_unions_and_logical_types_are_read_and_a_wrong_branch_costs_its_row(project, log, tmp_path):
    avro(tmp_path / "f.avro", FIELDS, [ROW, {**ROW, "id": "x"}, {**ROW, "id": 2.0}, {**ROW, "tags": [b"\xff"]}])
    ingest(project, log, "impressions", [tmp_path / "f.avro"])
    event = {"at": 1999, "id": 1, "user": "ann", "price": 1.5, "seen": True, "tags": ["a"], "sizes": [1]}
    assert events_in(project, log) == [event, {**event, "id": 2}]
    assert dead_in(log)[0]["detail"] == 'f.avro line 2: column id is "x", wanted int64'
    assert [row["row"] for row in dead_in(log)] == [2, 4]


@pytest.mark.parametrize("codec", ["deflate", "bzip2", "xz", "lz4"])
def test_avro_of_every_installed_codec_is_read(project, log, tmp_path, codec):
    avro(tmp_path / "f.avro", FIELDS, [ROW], codec)
    assert ingest(project, log, "impressions", [tmp_path / "f.avro"]).rows == 1


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (b"\x0csnappy", "codec snappy needs the package cramjam. run: pip install cramjam"),
        (b"\x12zstandard", r"codec zstandard needs the package backports.zstd. run: pip install backports.zstd"),
        (b"\x06br2", "codec br2 is unknown. hint: write it with deflate"),
    ],
)
def test_another_codec_is_refused_with_the_way_to_read_it(project, log, tmp_path, codec, message):
    out = io.BytesIO()
    fastavro.writer(out, {"type": "record", "name": "event", "fields": FIELDS}, [ROW])
    content = out.getvalue().replace(b"avro.codec\x08null", b"avro.codec" + codec)
    (tmp_path / "f.avro").write_bytes(content)
    needs = codec[1:].decode()
    if needs in fastavro.read.BLOCK_READERS and "missing" not in fastavro.read.BLOCK_READERS[needs].__qualname__:
        pytest.skip(f"{needs} is installed")
    with pytest.raises(InputError, match=message):
        ingest(project, log, "impressions", [tmp_path / "f.avro"])


def test_an_avro_container_damaged_behind_its_first_chunk_leaves_nothing(project, log, tmp_path):
    path = write(tmp_path / "f.avro", many(CHUNK_ROWS + 10_000))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"\x06ann")
    content[place : place + 4] = b"\x06\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"f.avro cannot be read as .avro"):
        ingest(project, log, "impressions", [path])
    assert log.end_offset("impressions", 0) == 0
