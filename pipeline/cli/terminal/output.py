"""Output of commands: results on stdout (one JSON object with --json), messages on stderr.

Values are printed as they are: no markup, no emoji names, and no character that controls the terminal.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.terminal.values import printable, text_of, to_plain


class StdoutClosedError(Exception):
    """The reader of stdout has closed it, as `head` does."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the exception to the caller; rich would end the process."""
        raise


stdout = Console(markup=False, emoji=False, highlight=False)
stderr = _Console(markup=False, emoji=False, highlight=False, soft_wrap=True, stderr=True)


def print_result(result: Mapping[str, Any], as_json: bool) -> None:
    """Print the result of a command as one JSON object, or as lines and tables.

    Raises:
        StdoutClosedError: the reader has closed stdout.
        OSError: stdout cannot be written; the error names it.
    """
    plain = to_plain(result)
    with writing_stdout():
        if as_json:
            sys.stdout.write(json.dumps(plain, allow_nan=False) + "\n")
            return
        for name, value in plain.items():
            _print_item(name, value, 0)


def print_message(text: str) -> None:
    """Print a message on stderr, if it can be written."""
    with suppress(OSError):
        # Not by rich: it would keep what could not be written and print it with the next message.
        print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)


@contextmanager
def user_output_on_stderr() -> Iterator[None]:
    """Inside, what the user's code prints goes to stderr: stdout holds the result only, which `print_result` writes."""
    result_stream = sys.stdout
    _result_streams.append(result_stream)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = result_stream
        _result_streams.pop()


_result_streams: list[TextIO] = []


@contextmanager
def writing_stdout() -> Iterator[None]:
    """Flushes stdout at the end. Raises as `print_result`."""
    user_stream = sys.stdout
    if _result_streams:
        sys.stdout = _result_streams[-1]
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise StdoutClosedError from None
    except OSError as failure:
        raise OSError(failure.errno, os.strerror(failure.errno or 0), "standard output") from None
    finally:
        sys.stdout = user_stream


def _print_item(name: str, value: Any, depth: int) -> None:
    """Print a line; for a mapping a block of lines; for a list of rows a table."""
    label = "  " * depth + printable(name.replace("_", " "))
    if isinstance(value, Mapping) and value:
        sys.stdout.write(f"{label}\n")
        for key, item in value.items():
            _print_item(str(key), item, depth + 1)
    elif not _is_rows(value):
        sys.stdout.write(f"{label}: {text_of(value, name)}\n")
    elif any(isinstance(item, Mapping) or _is_rows(item) for row in value for item in row.values()):
        for row in value:
            _print_item(name, row, depth)
    else:
        sys.stdout.write(f"{label}\n{_text_of_table(_table(value))}")


def _is_rows(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and isinstance(value[0], Mapping)


def _text_of_table(table: Table) -> str:
    """Lines that fit a terminal; in a pipe, one line per row, however long."""
    console = stdout
    if not stdout.is_terminal:
        width = Console(width=sys.maxsize).measure(table).maximum
        console = Console(width=max(width, 1), no_color=True, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        numeric = all(isinstance(row.get(name), int | float) for row in rows)
        heading = Text(printable(name.replace("_", " ")))
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(text_of(row.get(name), name)) for name in names))
    return table
