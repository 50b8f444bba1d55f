"""Values are printed as they are, for people and for scripts."""

import io
import json
import re
from contextlib import redirect_stdout

import numpy as np
import pytest

from pipeline.cli.terminal.output import print_message, print_result

VALUES = [
    "[bold]b[/bold]",
    "shoe[/sale]",
    "cat:100:7",
    ":smile: :+1:",
    "[link=http://x]a[/link]",
    "C:\\new[0]",
    "{curly} %s <b>&amp;</b>",
    "ключ 鍵 🔑",
    "5d41402abc4b2a76b9719d911017c592",
    "a" * 3_000,
]
CONTROLS = {
    "\x1b[2J": "\\x1b[2J",
    "a\nb": "a\\nb",
    "tab\tend": "tab\\tend",
    "bell\a": "bell\\x07",
    "\u202egnp.exe": "\\u202egnp.exe",
    "\udcff": "\\udcff",
}


def printed(result, as_json=False):
    out = io.StringIO()
    with redirect_stdout(out):
        print_result(result, as_json)
    return out.getvalue()


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_shown_as_it_is_in_a_line_in_a_table_and_as_a_name(value):
    assert printed({"value": value}) == f"value: {value}\n"
    assert printed({"rows": [{"value": value}]}).splitlines()[2].strip() == value
    assert printed({"scores": {value: 1}}).splitlines()[1] == f"  {value}: 1"
    assert printed({"rows": [{value: 1}]}).splitlines()[1].strip() == value
    assert json.loads(printed({"value": value}, as_json=True)) == {"value": value}


@pytest.mark.parametrize("value", CONTROLS)
def test_characters_that_control_a_terminal_are_shown_as_escape_sequences(value):
    assert printed({"value": value}) == f"value: {CONTROLS[value]}\n"
    assert printed({"rows": [{"value": value}]}).splitlines()[2].strip() == CONTROLS[value]
    assert json.loads(printed({"value": value}, as_json=True)) == {"value": value}


@pytest.mark.parametrize("value", VALUES)
def test_messages_are_shown_as_they_are(value, capsys):
    print_message(f"file {value} is absent\nhint")
    assert capsys.readouterr().err == f"file {value} is absent\nhint\n"


def test_digests_are_shortened_in_text_only():
    result = {"digest": "ab" * 32, "rows": [{"served_digest": "cd" * 32, "sha256": "ef" * 32}]}
    assert printed(result).split() == [
        "digest:",
        "ab" * 6 + "…",
        "rows",
        "served",
        "digest",
        "sha256",
        "cd" * 6 + "…",
        "ef" * 6 + "…",
    ]
    assert json.loads(printed(result, as_json=True)) == result


def test_a_row_is_one_line_in_a_pipe():
    lines = printed({"rows": [{"a": "x" * 2_000, "b": "two words"}, {"a": "y", "b": None}]}).splitlines()
    assert [line.split() for line in lines] == [["rows"], ["a", "b"], ["x" * 2_000, "two", "words"], ["y", "–"]]


def test_json_holds_no_integer_that_a_script_would_round():
    found = json.loads(printed({"key": 2**64 - 1, "keys": np.array([2**53, 2**53 + 1], np.uint64)}, as_json=True))
    assert found == {"key": str(2**64 - 1), "keys": [2**53, str(2**53 + 1)]}


def test_json_holds_no_number_that_json_does_not_have():
    text = printed({"loss": float("nan"), "weights": np.float32([1, np.inf, -np.inf])}, as_json=True)
    assert json.loads(text, parse_constant=pytest.fail) == {"loss": "NaN", "weights": [1, "Infinity", "-Infinity"]}


def test_times_have_one_form_and_durations_keep_their_unit():
    rows = [{"start_ms": 1_767_225_600_000, "last": {"at_ms": 1_767_225_600_001}, "retention_ms": 5}]
    result = {"stored_at_ms": 0, "watermark_ms": None, "log_time_ms": -1, "rows": rows}
    wanted = {"stored_at": "1970-01-01T00:00:00Z", "watermark": None, "log_time": None}
    rows = [{"start": "2026-01-01T00:00:00Z", "last": {"at": "2026-01-01T00:00:00.001Z"}, "retention_ms": 5}]
    assert json.loads(printed(result, as_json=True)) == wanted | {"rows": rows}
    assert "stored at: 1970-01-01T00:00:00Z" in printed(result)
    assert not re.search(r"\d{10}", printed(result))
