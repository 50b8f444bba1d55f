"""Values of users in the output of commands: shown as they are, and never obeyed by the terminal."""

import os

import pytest

from pipeline.cli.terminal.output import print_message, print_result
from tests.support.command.command_line import call, make_shop

VALUES = [
    "[bold]b",
    "[new] shoe",
    "shoe[/sale]",
    "[/]",
    "[red]hat",
    "[link=http://a]b",
    "\\[x]",
    "cat:100:7",
    ":x:",
    ":smile:",
    "żółć 🎉",
    " nbsp",
]
OBEYED = {"esc\x1b[31m": r"esc\x1b[31m", "two\nlines": r"two\nlines", "t\tb\rr\0n\x07": r"t\tb\rr\x00n\x07"}
OBEYED |= {"\x9b31m": r"\x9b31m", "\u2028": r"\u2028", "\u202eabc": r"\u202eabc", "\udcff": r"\udcff"}


def shapes(value):
    """The value in every place of a result."""
    table = [{"value": value, "count": 1}, {value: "x", "count": 2}]
    return {
        "line": value,
        "list": [value, value],
        "block": {value: value},
        "table": table,
        "deep": [{"a": {"b": value}}],
    }


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_shown_as_it_is_in_every_place(capsys, value):
    print_result(shapes(value), False)
    assert capsys.readouterr().out.count(value) == 8
    print_message(f"error: {value}")
    assert capsys.readouterr().err == f"error: {value}\n"


@pytest.mark.parametrize("value", OBEYED)
def test_what_a_terminal_would_obey_is_escaped_in_every_place(capsys, value):
    print_result(shapes(value), False)
    shown = capsys.readouterr().out
    assert shown.count(OBEYED[value]) == 8
    assert value not in shown
    print_message(f"error: {value}")
    assert value == "two\nlines" or capsys.readouterr().err == f"error: {OBEYED[value]}\n"


def test_a_file_whose_name_is_no_utf8_is_named(tmp_path):
    shop = make_shop(tmp_path / "shop")
    path = tmp_path / os.fsdecode(b"f\xff[red]:x:.csv")
    path.write_text("impression_id,at,user,item,position\na,1750000000000,u,i,0\nb,soon,u,i,0\n")
    done = call("ingest", "impressions", path, "--project", shop)
    assert done.code == 0, done
    exported = call("dead-letters", "list", "--project", shop)
    assert exported.code == 0, exported
    assert call("ingest", "impressions", path, "--project", shop).out.count(r"f\udcff[red]:x:.csv") == 1
    path.write_text("impression_id\n")
    failed = call("ingest", "impressions", path, "--project", shop)
    assert (failed.code, len(failed.err.splitlines())) == (3, 1)
    assert r"f\udcff[red]:x:.csv lacks column at" in failed.err


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_warnings_of_an_ingest_are_on_stderr_and_in_the_json(tmp_path, as_json):
    shop = make_shop(tmp_path / "shop")
    path = tmp_path / "f.csv"
    path.write_text("impression_id,at,user,item,position\na,1750000,u,i,0\n")
    done = call("ingest", "impressions", path, "--project", shop, *as_json)
    assert done.err.startswith(f"warning: {path} has times from 1970-01-01T00:29:10Z to")
    assert ("warnings" in done.out) == bool(as_json)
    if as_json:
        assert done.result["warnings"] == [done.err.removeprefix("warning: ").rstrip("\n")]
