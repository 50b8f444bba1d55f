"""Unsigned 64-bit ids: the column types `uint` and `uints`, from every file format and as single events, to keys."""

import json
from contextlib import closing

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.arrays.gather import RowSelection
from pipeline.arrays.keys import hash_column, ids128, shard_of
from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.features.instances import batch_of
from pipeline.features.transforms import normalise
from pipeline.formats.schemas import encode
from pipeline.ingest.ingest import ingest
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.schema_registry import SchemaRegistry
from pipeline.logs.open import open_log
from tests.support.manual_clock import ManualClock
from tests.support.world.ingest_world import dead_in, events_in

IDS = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]
ROWS = [{"at": 1000 + n, "user": user, "seen": [user, n], "id": f"imp-{n}"} for n, user in enumerate(IDS)]


@pytest.fixture
def project(tmp_path):
    columns = {"user": "uint", "seen": "uints", "id": "string"}
    document = {
        "events": {"key": ["user"], "impressions": {"columns": columns}, "clicks": {"columns": {"user": "uint"}}},
        "fields": [{"name": "user", "columns": ["user"]}, {"name": "seen", "columns": ["seen"]}],
    }
    return Project(tmp_path, parse_config(document), ManualClock(10**13))


def write(path):
    kind = path.suffix
    if kind == ".csv":
        lines = [f"{r['at']},{r['user']},{'|'.join(map(str, r['seen']))},{r['id']}" for r in ROWS]
        path.write_text("\n".join(["at,user,seen,id", *lines]))
    elif kind == ".jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    elif kind == ".parquet":
        types = [("at", pa.int64()), ("user", pa.uint64()), ("seen", pa.list_(pa.uint64())), ("id", pa.string())]
        pq.write_table(pa.Table.from_pylist(ROWS, pa.schema(types)), path)
    return path


@pytest.mark.parametrize("name", ["f.csv", "f.jsonl", "f.parquet"])
def test_ids_of_every_file_arrive_as_they_are(project, tmp_path, name):
    with closing(open_log(project)) as log:
        ingest(project, log, "impressions", [write(tmp_path / name)])
        assert (events_in(project, log), dead_in(log)) == (ROWS, [])


@pytest.mark.parametrize("value", ["-1", str(2**64), "1.5"])
def test_a_value_that_is_no_unsigned_integer_is_a_bad_row(project, tmp_path, value):
    (tmp_path / "f.csv").write_text(f"at,user,seen,id\n1,{value},,a\n")
    (tmp_path / "f.jsonl").write_text(f'{{"at": 1, "user": 1, "seen": [{value}], "id": "a"}}\n')
    with closing(open_log(project)) as log:
        report = ingest(project, log, "impressions", [tmp_path / "f.csv", tmp_path / "f.jsonl"])
    assert (report.rows, report.bad_rows) == (0, 2)


def test_single_events_hold_the_same_bits_in_a_long_of_any_schema(project):
    with closing(open_log(project)) as log:
        codec = EventCodec(project.config.events, "impressions", log)
        for row in ROWS:
            log.append("impressions", 0, [codec.encode_event(row["at"], {n: row[n] for n in ("user", "seen", "id")})])
        document = codec.schema.document
        fields = [f for f in document["fields"] if f["name"] != "id"]
        fields = [{"name": "user", "type": "long"} if f["name"] == "user" else f for f in fields]
        writer = SchemaRegistry(log).register("impressions", {**document, "fields": fields})
        log.append("impressions", 0, [encode(writer, {"at": 1, "user": -2, "seen": [-1]})])
        found = events_in(project, log)
    assert found == [*ROWS, {"at": 1, "user": 2**64 - 2, "seen": [2**64 - 1], "id": None}]


@pytest.mark.parametrize("value", [-1, 2**64])
def test_an_event_with_another_integer_is_refused(project, value):
    with closing(open_log(project)) as log:
        codec = EventCodec(project.config.events, "impressions", log)
        with pytest.raises(InputError, match=r"is no unsigned integer of 64 bits\. hint"):
            codec.encode_event(1, {"user": value})


def test_keys_ids_and_shards_of_unsigned_integers_are_those_of_their_bits():
    unsigned = pa.record_batch({"user": pa.array(IDS, pa.uint64())})
    signed = pa.record_batch({"user": pa.array(np.array(IDS, np.uint64).view(np.int64))})
    for compute in (
        lambda batch: hash_column(batch.column(0), 5),
        lambda batch: ids128(batch, ["user"]),
        lambda batch: shard_of(batch, ["user"], 7),
    ):
        assert np.array_equal(compute(unsigned), compute(signed))
    assert normalise(unsigned.column(0)).type == pa.uint64()
    assert RowSelection.of(unsigned, np.array([4, 0])).gather().column(0).to_pylist() == [IDS[4], IDS[0]]


def test_the_schema_of_an_unsigned_column_is_avro(project):
    with closing(open_log(project)) as log:
        document = EventCodec(project.config.events, "impressions", log).schema.document
    (user,) = [f["type"] for f in document["fields"] if f["name"] == "user"]
    assert user == ["null", {"type": "long", "unsigned": True}]
    fastavro.parse_schema(document)


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, str(2**64 - 1)])
def test_an_instance_for_a_prediction_may_have_an_unsigned_integer(value):
    batch, _ = batch_of([{"user": value, "seen": [value]}], {"user": "uint", "seen": "uints"}, 0)
    assert batch.to_pylist() == [{"user": int(value), "seen": [int(value)]}]


@pytest.mark.parametrize("value", [-1, 2**64, "-1", str(2**64), 1.5, True])
def test_an_instance_with_another_value_is_refused(value):
    with pytest.raises(InputError, match=r"column user: got .*, wanted uint"):
        batch_of([{"user": value}], {"user": "uint"}, 0)
