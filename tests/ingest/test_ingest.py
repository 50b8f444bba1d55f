"""Ingest: every file format, every kind of bad row, files refused as a whole, and interruptions."""

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, InputError, LogError
from pipeline.ingest.event_writer import append_heartbeat
from pipeline.ingest.files.chunk import CHUNK_ROWS
from pipeline.ingest.ingest import dry_run_ingest, ingest
from pipeline.logs.events.codec import EventCodec
from pipeline.logs.events.convert import convert, convert_time
from pipeline.logs.open import open_log
from tests.support.manual_clock import ManualClock
from tests.support.world.ingest_world import (
    ROWS,
    FullDisk,
    csv_text,
    dead_in,
    events_in,
    expected,
    make_project,
    many,
    write,
)


@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz", "f.jsonl", "f.jsonl.gz", "f.parquet", "f.avro"])
def test_every_format_gives_the_same_events(project, log, tmp_path, name):
    report = ingest(project, log, "impressions", [write(tmp_path / name, ROWS)])
    assert (report.rows, report.bad_rows) == (3, 0)
    assert events_in(project, log) == expected(ROWS)
    assert dead_in(log) == []


@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz", "f.jsonl", "f.jsonl.gz", "f.parquet", "f.avro"])
def test_rows_of_several_chunks_keep_their_order(project, log, tmp_path, name):
    rows = many(CHUNK_ROWS + 5)
    assert ingest(project, log, "impressions", [write(tmp_path / name, rows)]).rows == len(rows)
    assert [event["id"] for event in events_in(project, log)] == list(range(len(rows)))


def test_a_bad_csv_row_becomes_a_dead_letter_with_its_line_and_text(project, log, tmp_path):
    lines = csv_text(many(30)).splitlines()
    lines[5] = "soon,1,ann,1.5,true,a,1"
    lines[9] = "9,9,ann,1.5"
    lines[12] = "12,,ann,1.5,true,a,1"
    lines[20] = ""
    lines[29] = "29,29,ann,1.5,true,a,1|x"
    (tmp_path / "f.csv").write_text("\n".join(lines) + "\n")
    report = ingest(project, log, "impressions", [tmp_path / "f.csv"])
    assert (report.rows, report.bad_rows) == (25, 4)
    assert report.first_bad == (f"{tmp_path / 'f.csv'} line 6: column ts is 'soon', wanted a time in s",)
    dead = dead_in(log)
    assert [row["row"] for row in dead] == [6, 10, 13, 30]
    assert dead[0]["detail"] == "f.csv line 6: column ts is 'soon', wanted a time in s"
    assert dead[1]["detail"] == "f.csv line 10: 4 columns, wanted 7"
    assert dead[2]["detail"] == "f.csv line 13: column id is empty"
    assert [row["original"].decode() for row in dead] == [lines[5], lines[9], lines[12], lines[29]]
    assert {(row["reason"], row["topic"], row["offset"]) for row in dead} == {("undecodable", "impressions", -1)}


def test_a_dry_run_counts_like_an_ingest_and_appends_nothing(project, log, tmp_path):
    path = tmp_path / "f.csv"
    path.write_text(csv_text(many(30)) + "soon,1,ann,1.5,true,a,1\n")
    expected_report = dry_run_ingest(project, "impressions", [path])
    assert log.end_offset("impressions", 0) == log.end_offset("dead-letters", 0) == 0
    assert expected_report == ingest(project, log, "impressions", [path])
    assert (expected_report.rows, expected_report.bad_rows) == (30, 1)


def test_line_numbers_are_right_after_the_first_chunk(project, log, tmp_path):
    lines = csv_text(many(CHUNK_ROWS + 100)).splitlines()
    lines[7] = lines[CHUNK_ROWS + 2] = "too,short"
    lines[CHUNK_ROWS + 50] = "x,1,ann,1.5,true,a,1"
    lines[CHUNK_ROWS + 60] = "too,short"
    (tmp_path / "f.csv").write_text("\n".join(lines) + "\n")
    ingest(project, log, "impressions", [tmp_path / "f.csv"])
    assert [row["row"] for row in dead_in(log)] == [8, CHUNK_ROWS + 3, CHUNK_ROWS + 51, CHUNK_ROWS + 61]


def test_a_csv_value_that_is_not_utf8_costs_its_row_only(project, log, tmp_path):
    text = csv_text(many(20)).encode().replace(b"\n4,4,ann", b"\n4,4,\xff\xfe")
    (tmp_path / "f.csv").write_bytes(text)
    report = ingest(project, log, "impressions", [tmp_path / "f.csv"])
    assert (report.rows, report.bad_rows) == (19, 1)
    assert b"\xff\xfe" in dead_in(log)[0]["original"]


def test_a_csv_row_of_wrong_length_that_is_not_utf8_becomes_a_dead_letter(project, log, tmp_path):
    text = csv_text(many(20)).encode().replace(b"\n4,4,ann,1.5", b"\n\xff\xfe")
    (tmp_path / "f.csv").write_bytes(text)
    report = ingest(project, log, "impressions", [tmp_path / "f.csv"])
    assert (report.rows, report.bad_rows) == (19, 1)
    assert dead_in(log)[0]["row"] == 6


def test_quoted_separators_and_line_breaks_are_part_of_the_value(project, log, tmp_path):
    (tmp_path / "f.csv").write_text(csv_text(ROWS[:1]).replace("ann", '"a,""n""\nn"'))
    ingest(project, log, "impressions", [tmp_path / "f.csv"])
    assert events_in(project, log)[0]["user"] == 'a,"n"\nn'


def test_bad_json_lines_become_dead_letters_with_their_line_and_text(project, log, tmp_path):
    lines = [json.dumps(row) for row in many(40)]
    lines[3] = '{"ts": 3, "id":'
    lines[5] = "[1, 2]"
    lines[7] = ""
    lines[8] = json.dumps({**ROWS[0], "id": "eight"})
    lines[11] = json.dumps({**ROWS[0], "id": None})
    lines[13] = lines[14] + " " + lines[15]
    (tmp_path / "f.jsonl").write_text("\n".join(lines) + "\n")
    report = ingest(project, log, "impressions", [tmp_path / "f.jsonl"])
    assert (report.rows, report.bad_rows) == (34, 5)
    dead = dead_in(log)
    assert [row["row"] for row in dead] == [4, 6, 9, 12, 14]
    assert dead[2]["detail"] == 'f.jsonl line 9: column id is "eight", wanted int64'
    assert [row["original"].decode() for row in dead] == [lines[i] for i in (3, 5, 8, 11, 13)]


def test_a_parquet_row_without_key_or_time_becomes_a_dead_letter(project, log, tmp_path):
    rows = many(20)
    rows[4]["id"] = None
    rows[6]["ts"] = None
    assert ingest(project, log, "impressions", [write(tmp_path / "f.parquet", rows)]).bad_rows == 2
    dead = dead_in(log)
    assert [(row["row"], row["detail"].split(": ")[1]) for row in dead] == [
        (5, "column id is empty"),
        (7, "column ts is empty"),
    ]
    assert json.loads(dead[0]["original"])["user"] == "ann"


@pytest.mark.parametrize("name", ["f.parquet", "f.avro", "f.csv.gz", "f.jsonl.gz"])
def test_a_truncated_file_is_refused_by_name_and_leaves_nothing(project, log, tmp_path, name):
    path = write(tmp_path / name, many(CHUNK_ROWS + 5_000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 95 // 100])
    with pytest.raises(InputError, match=rf"{name} cannot be read.*fetch or write it again"):
        ingest(project, log, "impressions", [path])
    assert log.end_offset("impressions", 0) == 0


@pytest.mark.parametrize("name", ["f.csv", "f.parquet", "f.avro"])
def test_a_missing_column_is_refused_by_name(log, tmp_path, name):
    document = make_project(tmp_path).config.model_dump(exclude_unset=True)
    document["events"]["impressions"]["columns"]["shop"] = "string"
    wider = Project(tmp_path, parse_config(document), ManualClock())
    with pytest.raises(InputError, match=rf"{name} lacks column shop, it has .*ts.*hint"):
        ingest(wider, log, "impressions", [write(tmp_path / name, ROWS)])
    assert log.end_offset("impressions", 0) == 0


def test_a_wrong_typed_parquet_column_is_refused(project, log, tmp_path):
    table = pa.Table.from_pylist(ROWS)
    table = table.set_column(1, "id", pa.array(["1", "2", "3"]))
    pq.write_table(table, tmp_path / "f.parquet")
    with pytest.raises(InputError, match=r"f.parquet column id is string, springtide.toml declares int. hint"):
        ingest(project, log, "impressions", [tmp_path / "f.parquet"])


def test_a_wrong_typed_csv_column_is_refused_when_every_value_is_wrong(project, log, tmp_path):
    (tmp_path / "f.csv").write_text(csv_text([{**row, "price": "cheap"} for row in many(10)]))
    with pytest.raises(InputError, match=r"f.csv column price has values like 'cheap', springtide.toml declares float"):
        ingest(project, log, "impressions", [tmp_path / "f.csv"])
    assert log.end_offset("impressions", 0) == 0


def test_nine_rows_that_are_all_wrong_are_bad_rows(project, log, tmp_path):
    (tmp_path / "f.csv").write_text(csv_text([{**row, "price": "cheap"} for row in many(9)]))
    assert ingest(project, log, "impressions", [tmp_path / "f.csv"]).bad_rows == 9


def test_a_file_without_any_json_is_refused(project, log, tmp_path):
    (tmp_path / "f.jsonl").write_text(
        csv_text(many(20)).replace("ts", '"ts","id","user","price","seen","tags","sizes"')
    )
    with pytest.raises(InputError, match="no readable row; line 1: not JSON"):
        ingest(project, log, "impressions", [tmp_path / "f.jsonl"])


@pytest.mark.parametrize(("name", "message"), [("f.xls", "no known file format"), ("none.csv", "is not a file")])
def test_an_unknown_or_absent_file_is_refused(project, log, tmp_path, name, message):
    (tmp_path / "f.xls").write_text("")
    with pytest.raises(InputError, match=message):
        ingest(project, log, "impressions", [tmp_path / name])


@pytest.mark.parametrize("name", ["f.csv", "f.jsonl", "f.parquet"])
def test_an_empty_file_of_the_right_shape_has_no_rows(project, log, tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), path)
    else:
        path.write_text(csv_text([]) if name.endswith("csv") else "")
    assert ingest(project, log, "impressions", [path]).rows == 0


@pytest.mark.parametrize(
    ("unit", "value", "at_ms"),
    [
        ("s", 1573257673, 1573257673000),
        ("s", 1573257673.25, 1573257673250),
        ("ms", 1573257673001, 1573257673001),
        ("us", 1573257673001999, 1573257673001),
        ("iso", "2019-11-09T00:01:13Z", 1573257673000),
        ("iso", "2019-11-09T01:01:13.250+01:00", 1573257673250),
        ("iso", "2019-11-09 00:01:13.123456", 1573257673123),
        ("iso", "1969-12-31T23:59:59.9995", -1),
    ],
)
def test_times_of_every_unit_become_milliseconds(unit, value, at_ms):
    for column in (pa.array([str(value)]), pa.array([str(value).encode()]), pa.array([value])):
        assert convert_time(column, unit)[0].to_pylist() == [at_ms]


def test_the_type_of_a_timestamp_column_decides_its_unit():
    column = pa.array([1_573_257_673_001_999], pa.timestamp("us"))
    assert convert_time(column, "s")[0].to_pylist() == [1_573_257_673_001]


def test_instants_with_and_without_a_zone_may_be_in_one_column():
    column = pa.array(["2019-11-09T00:01:13Z", "2019-11-09T00:01:14", "soon", None])
    times, failed = convert_time(column, "iso")
    assert times.to_pylist() == [1573257673000, 1573257674000, None, None]
    assert failed.tolist() == [False, False, True, False]


def test_only_the_values_that_do_not_convert_are_failed():
    texts = [str(n) for n in range(10_000)]
    for place in (0, 777, 778, 9_999):
        texts[place] = "1e"
    values, failed = convert(pa.array(texts), "int")
    assert np.flatnonzero(failed).tolist() == [0, 777, 778, 9_999]
    assert values[5_000].as_py() == 5_000


def test_numbers_out_of_range_of_their_type_are_failed():
    assert convert(pa.array(["9223372036854775808", "9223372036854775807"]), "int")[1].tolist() == [True, False]
    assert convert(pa.array([1.5, 2.0]), "int")[1].tolist() == [True, False]


def test_a_finished_file_is_not_appended_again_even_under_another_name(project, log, tmp_path):
    first, second = write(tmp_path / "a.csv", ROWS), write(tmp_path / "b.csv", ROWS)
    ingest(project, log, "impressions", [first])
    report = ingest(project, log, "impressions", [first, second])
    assert (report.rows, report.skipped_files) == (0, (str(first), str(second)))
    assert len(events_in(project, log)) == 3


def test_a_finished_file_is_appended_again_on_demand(project, log, tmp_path):
    path = write(tmp_path / "a.csv", ROWS)
    ingest(project, log, "impressions", [path])
    assert ingest(project, log, "impressions", [path], again=True).rows == 3
    assert len(events_in(project, log)) == 6


def test_a_lost_folder_of_entries_is_a_warning(project, log, tmp_path):
    path = write(tmp_path / "f.csv", ROWS)
    before = ingest(project, log, "impressions", [path]).warnings
    assert not any("holds ingested files" in warning for warning in before)
    shutil.rmtree(project.state / "ingest")
    report = ingest(project, log, "impressions", [path])
    assert (report.rows, len(report.warnings)) == (3, len(before) + 1)
    assert report.warnings[0].startswith(f"topic impressions holds ingested files, but {project.state}/ingest has no")


def test_a_file_whose_entry_was_deleted_is_not_appended_twice(project, log, tmp_path):
    path = write(tmp_path / "f.csv", ROWS)
    ingest(project, log, "impressions", [path])
    (entry,) = (project.state / "ingest").glob("*.json")
    entry.unlink()
    with pytest.raises(DamagedError, match=r"is missing\. hint: restore it, or pass --again"):
        ingest(project, log, "impressions", [path])
    assert len(events_in(project, log)) == 3
    assert ingest(project, log, "impressions", [path], again=True).rows == 3
    assert ingest(project, log, "impressions", [path]).skipped_files == (str(path),)


def test_a_topic_created_again_receives_the_file_again(project, log, tmp_path):
    path = write(tmp_path / "a.csv", ROWS)
    ingest(project, log, "impressions", [path])
    log.delete_topic("impressions")
    log.create_topic("impressions", 1)
    assert ingest(project, log, "impressions", [path]).rows == 3


@pytest.mark.parametrize("appends", range(6))
def test_an_interrupted_ingest_continues_where_it_stopped(tmp_path, appends):
    project = make_project(tmp_path, partitions=2)
    log = open_log(project)
    lines = csv_text(many(2 * CHUNK_ROWS)).splitlines()
    lines[3] = lines[CHUNK_ROWS + 9] = "too,short"
    (tmp_path / "f.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(LogError):
        ingest(project, FullDisk(log, appends), "impressions", [tmp_path / "f.csv"])
    report = ingest(project, log, "impressions", [tmp_path / "f.csv"])
    assert (report.rows, report.bad_rows) == (2 * CHUNK_ROWS - 2, 2)
    assert report.continued_files == (str(tmp_path / "f.csv"),)
    ids = [event["id"] for event in events_in(project, log)]
    assert sorted(ids) == [n for n in range(2 * CHUNK_ROWS) if n not in (2, CHUNK_ROWS + 8)]
    assert [row["row"] for row in dead_in(log)] == [4, CHUNK_ROWS + 10]


def test_rows_are_partitioned_by_key_in_their_order(tmp_path):
    project = make_project(tmp_path, partitions=3)
    log = open_log(project)
    ingest(project, log, "impressions", [write(tmp_path / "f.parquet", many(3_000))])
    codec = EventCodec(project.config.events, "impressions", log)
    parts = [codec.decode(log.read("impressions", p, 0), "impressions", p, None).block for p in range(3)]
    ids = [part.columns.column("id").to_pylist() for part in parts]
    assert all(len(part) > 800 and part == sorted(part) for part in ids)
    assert sorted(n for part in ids for n in part) == list(range(3_000))


def test_progress_reaches_the_end(project, log, tmp_path):
    reported = []
    paths = [write(tmp_path / "a.csv", many(CHUNK_ROWS + 1)), write(tmp_path / "b.jsonl", ROWS)]
    ingest(project, log, "impressions", paths, progress=lambda done, total: reported.append((done, total)))
    assert reported == sorted(reported)
    assert reported[-1] == (sum(path.stat().st_size for path in paths),) * 2


def test_a_heartbeat_is_appended_to_every_partition(tmp_path):
    project = make_project(tmp_path, partitions=2)
    log = open_log(project)
    append_heartbeat(project, log, 5_000, ["clicks"])
    codec = EventCodec(project.config.events, "clicks", log)
    watermarks_ms = [codec.decode(log.read("clicks", p, 0), "clicks", p, None).block.watermark_ms for p in range(2)]
    assert watermarks_ms == [5_000, 5_000]
    assert log.end_offset("impressions", 0) == 0


def test_typed_columns_may_be_narrower_large_or_dictionaries(project, log, tmp_path):
    table = pa.Table.from_pylist(ROWS)
    table = table.set_column(1, "id", pa.array([1, 2, 3], pa.int32()))
    table = table.set_column(2, "user", table.column("user").dictionary_encode())
    table = table.set_column(3, "price", pa.array([1.5, None, -2.0], pa.float32()))
    table = table.set_column(5, "tags", table.column("tags").cast(pa.large_list(pa.large_string())))
    pq.write_table(table, tmp_path / "f.parquet")
    ingest(project, log, "impressions", [tmp_path / "f.parquet"])
    assert events_in(project, log) == expected(ROWS)


def test_a_csv_of_arrow_reads_back(project, log, tmp_path):
    table = pa.Table.from_pylist(many(100)).drop_columns(["tags", "sizes"])
    for name in ("tags", "sizes"):
        table = table.append_column(name, pa.array([""] * 100))
    out = io.BytesIO()
    pa_csv.write_csv(table, out)
    (tmp_path / "f.csv").write_bytes(out.getvalue())
    assert ingest(project, log, "impressions", [tmp_path / "f.csv"]).rows == 100
