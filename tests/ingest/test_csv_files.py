"""CSV: values as they are, rows that are none, headers, and that pieces of a file give what the whole file gives."""

import csv
import gzip
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.configuration.streams.events import EventColumns
from pipeline.errors import InputError
from pipeline.ingest.files.chunk import CHUNK_ROWS, Sizes
from pipeline.ingest.files.csv_file import read_csv
from pipeline.ingest.ingest import ingest
from tests.support.world.ingest_world import csv_text, dead_in, events_in, many

HEAD = "ts,id,user,price,seen,tags,sizes\n"
COLUMNS = EventColumns(time="a", columns={"b": "string"})


def ingest_text(project, log, tmp_path, text):
    """Ingest a file; returns its events and its dead letters."""
    path = tmp_path / "f.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    ingest(project, log, "impressions", [path])
    return events_in(project, log), dead_in(log)


def rows_of(content, name="f.csv", **sizes):
    """Lines and values of the good rows, and lines and reasons of the bad ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        good, bad = [], []
        for chunk in read_csv(path, COLUMNS, Sizes(**sizes)):
            values = zip(*(chunk.columns.column(n).to_pylist() for n in ("a", "b")), strict=True)
            originals = [chunk.original(row) for row in range(chunk.columns.num_rows)]
            good += zip(chunk.lines.tolist(), values, originals, strict=True)
            bad += [(row.line, row.why, row.original) for row in chunk.malformed]
        return good, bad


CONTENT = st.lists(
    st.sampled_from([",", '"', '""', "\n", "\r", "\r\n", "x", "é", "\0", "1,2\n", '"a\nb",c\n']), max_size=40
)


@given(CONTENT, st.integers(1, 9), st.integers(1, 60), st.integers(1, 5), st.booleans())
def test_pieces_and_chunks_of_any_size_give_what_the_whole_file_gives(
    parts, piece_bytes, chunk_bytes, chunk_rows, zipped
):
    content = ("a,b\n" + "".join(parts)).encode()
    whole = rows_of(content, row_bytes=20)
    content, name = (gzip.compress(content, 1), "f.csv.gz") if zipped else (content, "f.csv")
    sizes = {"piece_bytes": piece_bytes, "chunk_bytes": chunk_bytes, "chunk_rows": chunk_rows}
    assert rows_of(content, name, row_bytes=20, **sizes) == whole


# A writer that quotes only what it must takes one kind of line end for a value.
LINE_ENDS = [("\n", True), ("\r\n", True), ("\r", True), ("\r\n", False)]
VALUE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(VALUE, VALUE), max_size=20), st.sampled_from(LINE_ENDS))
def test_what_a_csv_writer_wrote_is_read_as_it_was(rows, style):
    line_end, quote_all = style
    out = io.StringIO()
    csv.writer(out, lineterminator=line_end, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL).writerows(
        [("a", "b"), *rows]
    )
    good, bad = rows_of(out.getvalue().encode(), piece_bytes=7)
    assert bad == []
    wanted = [tuple(v.encode() if v or quote_all else None for v in row) for row in rows]
    assert [values for _, values, _ in good] == wanted


def test_a_quoted_empty_value_is_null_in_a_number_column_and_text_in_a_string_column(project, log, tmp_path):
    events, dead = ingest_text(project, log, tmp_path, HEAD + '"1","1","","","","",""\n')
    assert dead == []
    assert events == [{"at": 1000, "id": 1, "user": "", "price": None, "seen": None, "tags": [], "sizes": []}]


def test_integers_written_as_floats_are_read_exactly(project, log, tmp_path):
    events, dead = ingest_text(
        project, log, tmp_path, HEAD + "1,9007199254740993.0,u,1,true,,1.0|2.\n2,3.5,u,1,true,,\n"
    )
    assert [(event["id"], event["sizes"]) for event in events] == [(9007199254740993, [1, 2])]
    assert dead[0]["detail"] == "f.csv line 3: column id is '3.5', wanted int"


@pytest.mark.parametrize(
    ("text", "tags"),
    [("x|y", ["x", "y"]), ("x|y|", ["x", "y"]), ("x||y", ["x", "y"]), ("|", []), ("", []), (" x | y ", ["x", "y"])],
)
def test_an_empty_element_of_a_list_is_none(project, log, tmp_path, text, tags):
    numbers = text.replace("x", "1").replace("y", "2")
    events, dead = ingest_text(project, log, tmp_path, HEAD + f"1,1,u,1,true,{text},{numbers}\n")
    assert dead == []
    assert (events[0]["tags"], events[0]["sizes"]) == (tags, [{"x": 1, "y": 2}[tag] for tag in tags])


@pytest.mark.parametrize("value", ["1e999", "-1e999", "9" * 400])
def test_a_number_too_large_for_a_float_is_a_bad_row(project, log, tmp_path, value):
    events, dead = ingest_text(project, log, tmp_path, HEAD + f"1,1,u,{value},true,,\n2,2,u,-inf,true,,\n")
    assert [event["price"] for event in events] == [float("-inf")]
    assert [row["row"] for row in dead] == [2]


@pytest.mark.parametrize(
    "value", ["shoe[/sale]", "[bold]b", "cat:100:7", "esc\x1b[31m", "nul\0", 'a"b', " x ", "\u2028"]
)
def test_a_value_arrives_as_it_is(project, log, tmp_path, value):
    events, dead = ingest_text(project, log, tmp_path, HEAD + f"1,1,{value},1,true,,\n")
    assert ([event["user"] for event in events], dead) == ([value], [])


def test_an_unclosed_quote_costs_its_line_only(project, log, tmp_path):
    lines = csv_text(many(20)).splitlines()
    lines[15] = '14,14,"ann,1.5,true,a,1'
    events, dead = ingest_text(project, log, tmp_path, "\n".join(lines) + "\n")
    assert [event["id"] for event in events] == [n for n in range(20) if n != 14]
    assert [row["original"].decode() for row in dead] == [lines[15]]
    assert dead[0]["detail"] == "f.csv line 16: the quote that opens column 3 is not closed"


def test_two_stray_quotes_cost_their_two_lines(project, log, tmp_path):
    lines = csv_text(many(20)).splitlines()
    lines[5], lines[15] = '4,4,"ann,1.5,true,a,1', '14,14,"ann,1.5,true,a,1'
    events, dead = ingest_text(project, log, tmp_path, "\n".join(lines) + "\n")
    assert (len(events), [row["row"] for row in dead]) == (18, [6, 16])
    assert dead[0]["detail"] == "f.csv line 6: column 3 goes on after its closing quote"


def test_a_stray_quote_behind_the_first_chunk_and_a_huge_value_cost_a_row_each(project, log, tmp_path):
    lines = csv_text(many(CHUNK_ROWS + 100)).splitlines()
    lines[CHUNK_ROWS + 10] = lines[CHUNK_ROWS + 10].replace("ann", '"ann')
    lines[CHUNK_ROWS + 20] = lines[CHUNK_ROWS + 20].replace("ann", "x" * 5_000_000)
    events, dead = ingest_text(project, log, tmp_path, "\n".join(lines) + "\n")
    assert len(events) == CHUNK_ROWS + 98
    assert [row["row"] for row in dead] == [CHUNK_ROWS + 11, CHUNK_ROWS + 21]
    assert "longer than 4194304 bytes; its last 3670016 bytes are not kept" in dead[1]["detail"]
    assert dead[1]["original"] == lines[CHUNK_ROWS + 20][: 512 << 10].encode()


def test_line_numbers_are_those_of_an_editor(project, log, tmp_path):
    text = HEAD + '1,1,"two\nlines",1,true,,\n\nx,2,u,1,true,,\n'
    assert ingest_text(project, log, tmp_path, text)[1][0]["row"] == 5


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way_and_the_last_one_in_none(project, log, tmp_path, line_end):
    events, dead = ingest_text(project, log, tmp_path, csv_text(many(3)).rstrip("\n").replace("\n", line_end))
    assert ([event["id"] for event in events], dead) == ([0, 1, 2], [])


def test_a_line_of_white_space_is_no_row(project, log, tmp_path):
    events, dead = ingest_text(project, log, tmp_path, HEAD + "1,1,u,1,true,,\n  \n\t\n2,2,u,1,true,,\n \n")
    assert (len(events), dead) == (2, [])


def test_a_truncated_last_line_is_a_bad_row(project, log, tmp_path):
    events, dead = ingest_text(project, log, tmp_path, csv_text(many(3)).rstrip("\n") + "\n3,3,an")
    assert (len(events), dead[0]["original"]) == (3, b"3,3,an")


def test_a_byte_order_mark_and_a_bad_byte_cost_one_row(project, log, tmp_path):
    text = b"\xef\xbb\xbf" + csv_text(many(20)).encode().replace(b"\n4,4,ann", b"\n4,4,\xff")
    events, dead = ingest_text(project, log, tmp_path, text)
    assert (len(events), [row["row"] for row in dead]) == (19, [6])
    assert b"\xff" in dead[0]["original"]


def test_undeclared_columns_may_have_any_name_and_any_value(project, log, tmp_path):
    head = b"pr\xe9nom," + HEAD.strip().encode() + b",x,x," + b"y" * 200_000 + b"\n"
    events, dead = ingest_text(project, log, tmp_path, head + b"\xff,1,1,u,1,true,,,,,\n")
    assert ([event["id"] for event in events], dead) == ([1], [])


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"pr\xe9nom,id\n", r"lacks column ts, user.*it has pr\\xe9nom, id. hint"),
        (b'"ts,id\n', "line 1, its header, has a quote that is not closed.*hint"),
        (b"x" * 5_000_000, "line 1, its header, exceeds 4194304 bytes. hint"),
        (HEAD.replace(",", ";").encode(), "separated by semicolons. hint: use commas"),
        (HEAD.encode("utf-16"), "is UTF-16. hint"),
        (b"ts,id,user,price,seen,tags,sizes,id\n", "has column id twice. hint"),
        (b"", "it has no columns"),
        (b"\n", "it has no columns"),
        (b"\0\0\0\0", "lacks column"),
    ],
)
def test_a_wrong_header_is_refused_with_one_line_that_names_the_way_out(project, log, tmp_path, head, message):
    with pytest.raises(InputError, match=message) as failure:
        ingest_text(project, log, tmp_path, head)
    assert len(str(failure.value)) < 1000
    assert log.end_offset("impressions", 0) == log.end_offset("dead-letters", 0) == 0
