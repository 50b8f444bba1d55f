"""How commands speak: results on stdout (one JSON object with --json), talk on stderr, bars only on a terminal."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False)


def emit(result: Mapping[str, Any], as_json: bool) -> None:
    """The command's result: one JSON object, or its lines and tables."""
    if as_json:
        sys.stdout.write(json.dumps(result, default=_plain) + "\n")
        return
    for name, value in result.items():
        if _tabular(value):
            stdout.print(_table(name, value))
        elif isinstance(value, Mapping) and value:
            stdout.print(_table(name, [{"": key, "value": _shown(item)} for key, item in value.items()]))
        elif value not in (None, [], {}):
            stdout.print(f"{name.replace('_', ' ')}: {_shown(value)}", markup=False)


def say(text: str) -> None:
    """A line of talk, to stderr."""
    stderr.print(text, markup=False)


@contextmanager
def progress_bar(title: str) -> Iterator[tuple[Progress, TaskID]]:
    """A bar on stderr; silent where stderr is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as progress:
        yield progress, progress.add_task(title, total=None)


def instant(at_ms: int | None) -> str | None:
    """A time in milliseconds as ISO 8601, UTC; None for the far past that means "nothing seen yet".

    >>> instant(1_573_257_673_000)
    '2019-11-09T00:01:13+00:00'
    """
    if at_ms is None or at_ms < 0:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


def _tabular(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and bool(value) and isinstance(value[0], Mapping)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title.replace("_", " "), title_justify="left", box=None, header_style="bold")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        numeric = all(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(row.get(name)) for name in names))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_shown(item) for item in value)
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
