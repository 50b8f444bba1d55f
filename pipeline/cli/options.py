"""Options that many commands share, and how a time on the command line is read."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.ground.errors import InputError
from pipeline.ground.project import Project

ProjectFolder = Annotated[Path, typer.Option("--project", "-C", help="Folder with freshet.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
UntilEnd = Annotated[bool, typer.Option("--until-end", help="Stop after what is in the logs now.")]
OutFile = Annotated[Path, typer.Option("--out", help="Parquet file to write.")]
HERE = Path()


def open_project(folder: Path) -> Project:
    """The project in `folder`. Raises ConfigError."""
    return Project.open(folder)


def read_time(text: str) -> int:
    """A time as ISO 8601 (UTC unless it names a zone) or milliseconds since 1970, in milliseconds.

    >>> read_time("2019-11-09T00:01:13") == read_time("1573257673000")
    True
    """
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"time {text} is neither ISO 8601 nor milliseconds. hint: 2026-01-31T14:00:00Z") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def read_range(text: str) -> tuple[int, int]:
    """`FROM..TO` as two times in milliseconds, FROM before TO."""
    start, separator, end = text.partition("..")
    if not separator:
        raise InputError(f"range {text} has no two dots. hint: 2026-01-31T14:00:00Z..2026-01-31T16:00:00Z")
    first, last = read_time(start), read_time(end)
    if first >= last:
        raise InputError(f"range {text} ends at {end}, not after its start {start}. hint: FROM..TO")
    return first, last
