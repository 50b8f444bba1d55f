"""Output of commands: results on stdout (one JSON object with --json), messages and progress bars on stderr."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.filesize import pick_unit_and_suffix
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False)
_PIPE_WIDTH = 1_000
_IN_SECONDS, _IN_MINUTES = 120, 7_200
_DIGEST = re.compile("[0-9a-f]{32,}")


def print_result(result: Mapping[str, Any], as_json: bool) -> None:
    """Print the result of a command as one JSON object, or as lines and tables."""
    if as_json:
        sys.stdout.write(json.dumps(result, default=_json_value) + "\n")
        return
    for name, value in result.items():
        _print_item(name, value, 0)


def print_message(text: str) -> None:
    """Print a line on stderr."""
    stderr.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(title: str) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar on stderr, only if stderr is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as progress:
        yield progress, progress.add_task(title, total=None)


def format_time(at_ms: int | None) -> str | None:
    """ISO 8601 in UTC of milliseconds since 1970; None for a negative time, which means that nothing was seen yet.

    >>> format_time(1_573_257_673_000)
    '2019-11-09T00:01:13+00:00'
    """
    if at_ms is None or at_ms < 0:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


def format_size(count: int) -> str:
    """A number of bytes with a unit.

    >>> format_size(0), format_size(1_023), format_size(100_264), format_size(3 << 30)
    ('0 B', '1023 B', '98 KiB', '3 GiB')
    """
    unit, suffix = pick_unit_and_suffix(count, ["B", "KiB", "MiB", "GiB", "TiB"], 1024)
    return f"{count / unit:.0f} {suffix}"


def format_age(at_ms: int | None, now_ms: int) -> str:
    """The age of an event at `at_ms`.

    >>> format_age(1_000, 4_500), format_age(0, 600_000), format_age(0, 8_000_000), format_age(None, 0)
    ('3 s ago', '10 min ago', '2 h ago', 'never')
    """
    if at_ms is None:
        return "never"
    seconds = max(0, now_ms - at_ms) // 1000
    if seconds < _IN_SECONDS:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < _IN_MINUTES else f"{seconds // 3600} h ago"


def _print_item(name: str, value: Any, depth: int) -> None:
    """Print a line; for a mapping a block of lines; for a list of rows a table."""
    label = "  " * depth + name.replace("_", " ")
    if isinstance(value, Mapping) and value:
        stdout.print(label, markup=False)
        for key, item in value.items():
            _print_item(str(key), item, depth + 1)
    elif not _is_rows(value):
        stdout.print(f"{label}: {_text_of(value)}", markup=False)
    elif any(isinstance(item, Mapping) or _is_rows(item) for row in value for item in row.values()):
        for row in value:
            _print_item(name, row, depth)
    else:
        stdout.print(label, markup=False)
        # One line per row in a pipe.
        console = stdout if stdout.is_terminal else Console(width=_PIPE_WIDTH, highlight=False)
        console.print(_table(value))


def _is_rows(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and isinstance(value[0], Mapping)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        numeric = all(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text_of(row.get(name)) for name in names))
    return table


def _text_of(value: Any) -> str:
    """Text of a value. Digests are shortened; --json prints them in full."""
    if value is None or value == [] or value == () or value == {}:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:12] + "…"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text_of(item) for item in value)
    return str(value)


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
