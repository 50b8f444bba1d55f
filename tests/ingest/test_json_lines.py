"""JSON lines: whatever a line is, it costs at most itself."""

import gzip
import json
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.configuration.streams.events import EventColumns
from pipeline.errors import InputError
from pipeline.ingest.files.chunk import Sizes
from pipeline.ingest.files.jsonl_file import read_jsonl
from pipeline.ingest.ingest import ingest
from pipeline.logs.open import open_log
from tests.support.world.ingest_world import ROWS, dead_in, events_in, expected, make_project

GOOD = json.dumps(ROWS[0]).encode()
COLUMNS = EventColumns(time="a", columns={"b": "string", "c": "ints"})


def ingest_lines(project, log, tmp_path, *lines, name="f.jsonl"):
    path = tmp_path / name
    content = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    report = ingest(project, log, "impressions", [path])
    return report, events_in(project, log), dead_in(log)


def changed(**values):
    return json.dumps({**ROWS[0], **values}).encode()


NO_EVENTS = {
    "null": b"null",
    "a number": b"1",
    "a text": b'"s"',
    "true": b"true",
    "an array": b"[]",
    "two nulls": b"null null",
    "two objects": GOOD + GOOD,
    "an empty object": b"{}",
    "a truncated object": GOOD[:-5],
    "deep arrays": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a deep value of another column": GOOD[:-1] + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "NaN": changed(price=float("nan")),
    "Infinity": changed(price=float("inf")),
    "a number too large for a float": GOOD.replace(b"1.5", b"1e999"),
    "an integer of 5,000 digits": GOOD.replace(b"1.5", b"9" * 5000),
    "an integer too large": changed(id=2**63),
    "a fraction as integer": changed(id=1.5),
    "a float that is one of many integers": GOOD.replace(b'"id": 1', b'"id": 1e17'),
    "a boolean as integer": changed(id=True),
    "a text as integer": changed(id="1"),
    "a number as text": changed(user=1),
    "a number as boolean": changed(seen=1),
    "an object as text": changed(user={"a": 1}),
    "an array as text": changed(user=["a"]),
    "a text as list": changed(tags="a|b"),
    "a list of mixed types": changed(tags=["a", 1]),
    "a list in a list": changed(sizes=[[1]]),
    "a text as time": changed(ts="soon"),
    "an object as time": changed(ts={}),
    "a time too large": changed(ts=1e300),
    "no time": changed(ts=None),
    "no key": changed(id=None),
    "a lone surrogate": GOOD.replace(b"ann", b"\\ud800"),
    "bytes that are no UTF-8": GOOD.replace(b"ann", b"\xff\xfe"),
    "a NUL byte": GOOD.replace(b"ann", b"\0"),
    "NUL bytes": b"\0\0\0",
    "a control character": GOOD.replace(b"ann", b"\x1b"),
    "a column twice": GOOD[:-1] + b', "id": 2}',
    "a column twice, once with escapes": GOOD[:-1] + b', "\\u0069d": 2}',
    "a byte-order mark": b"\xef\xbb\xbf" + GOOD,
    "single quotes": GOOD.replace(b'"', b"'"),
    "a comment": b"// " + GOOD,
    "a line of 5 MB": GOOD.replace(b"ann", b"x" * 5_000_000),
}


@pytest.mark.parametrize("what", NO_EVENTS)
def test_a_line_that_is_no_event_is_a_bad_row(project, log, tmp_path, what):
    line = NO_EVENTS[what]
    report, events, dead = ingest_lines(project, log, tmp_path, GOOD, line, GOOD, b"", line)
    assert (report.rows, report.bad_rows) == (2, 2)
    assert events == expected([ROWS[0]] * 2)
    assert [row["row"] for row in dead] == [2, 5]
    assert dead[0]["original"] == line[: 512 << 10]
    assert dead[0]["detail"].startswith("f.jsonl line 2: ")
    assert len(dead[0]["detail"]) < 300


EVENTS = {
    "white space around it": (b" \t" + GOOD + b"\r", {}),
    "an undeclared column": (changed(other={"deep": [1]}), {}),
    "an undeclared column twice": (GOOD[:-1] + b', "x": 1, "x": 2}', {}),
    "a declared name inside another value": (GOOD[:-1] + b', "x": {"id": 5, "user": "id"}}', {}),
    "a declared name as a value": (changed(user="id", tags=["id"]), {"user": "id", "tags": ["id"]}),
    "an integer as float": (changed(id=1.0, sizes=[1.0, 2]), {}),
    "the largest integer": (changed(id=2**63 - 1), {"id": 2**63 - 1}),
    "an integer that is no float": (changed(id=2**53 + 1), {"id": 2**53 + 1}),
    "a float without fraction": (changed(price=2), {"price": 2.0}),
    "missing values": (b'{"ts": 1000, "id": 1}', dict.fromkeys(["user", "price", "seen", "tags", "sizes"])),
    "a null in a list": (changed(sizes=[1, None]), {"sizes": [1, None]}),
    "escapes": (changed(user="żółć \u0000 \U0001f600"), {"user": "żółć \0 \U0001f600"}),
    "markup": (changed(user="shoe[/sale] cat:100:7"), {"user": "shoe[/sale] cat:100:7"}),
}


@pytest.mark.parametrize("what", EVENTS)
def test_a_line_that_is_an_event_arrives_as_it_is(project, log, tmp_path, what):
    line, values = EVENTS[what]
    _, events, dead = ingest_lines(project, log, tmp_path, GOOD, line)
    assert dead == []
    assert events == expected([ROWS[0], {**ROWS[0], **values}])


@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.gz"])
def test_a_byte_order_mark_and_carriage_returns_are_no_part_of_a_line(project, log, tmp_path, name):
    _, events, dead = ingest_lines(project, log, tmp_path, b"\xef\xbb\xbf" + GOOD + b"\r", GOOD + b"\r", name=name)
    assert (len(events), dead) == (2, [])


def test_a_last_line_without_end_is_read(project, log, tmp_path):
    (tmp_path / "f.jsonl").write_bytes(GOOD + b"\n" + GOOD)
    assert ingest(project, log, "impressions", [tmp_path / "f.jsonl"]).rows == 2


def test_a_column_that_no_line_has_is_null_and_a_warning(project, log, tmp_path):
    report, events, _ = ingest_lines(project, log, tmp_path, b'{"ts": 1000, "id": 1, "user": "u"}')
    assert events[0]["price"] is None
    assert f"{tmp_path}/f.jsonl: no row has column price, it is null" in report.warnings


@pytest.mark.parametrize(("missing", "line"), [("ts", b'{"id": 1, "user": "u"}'), ("id", b'{"ts": 1, "user": "u"}')])
def test_a_file_whose_lines_all_lack_time_or_key_is_refused(project, log, tmp_path, missing, line):
    with pytest.raises(InputError, match=f"f.jsonl lacks column {missing}, it has"):
        ingest_lines(project, log, tmp_path, line)
    assert log.end_offset("impressions", 0) == 0


def test_times_of_microseconds_are_exact(tmp_path):
    project = make_project(tmp_path, "us")
    with closing(open_log(project)) as log:
        lines = [changed(ts=1767225600000999), changed(ts=1767225600001000.0), changed(ts=2**53 + 1)]
        _, events, _ = ingest_lines(project, log, tmp_path, *lines)
    assert [event["at"] for event in events] == [1767225600000, 1767225600001, 9007199254740]


LINES = st.lists(
    st.sampled_from(
        [b"null", b"", b'{"a":1,"b":"x","c":[1]}', b'{"a":2}', b'{"b":3}', b"{" * 40, b'{"a":1,"a":2}', b"\r"]
    ),
    max_size=12,
)


@given(LINES, st.integers(1, 5), st.integers(1, 60), st.booleans())
def test_chunks_of_any_size_give_what_the_whole_file_gives(lines, chunk_rows, chunk_bytes, zipped):
    content = b"\n".join([b'{"a":0,"b":"x","c":[]}', *lines])

    def rows(name, data, **sizes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            chunks = list(read_jsonl(path, COLUMNS, ["b"], Sizes(row_bytes=30, **sizes)))
        good = [pair for c in chunks for pair in zip(c.lines.tolist(), c.columns.to_pylist(), strict=True)]
        return good, [bad for c in chunks for bad in c.malformed]

    name, data = ("f.jsonl.gz", gzip.compress(content, 1)) if zipped else ("f.jsonl", content)
    assert rows(name, data, chunk_rows=chunk_rows, chunk_bytes=chunk_bytes) == rows("f.jsonl", content)
