"""Options that many commands share, and how a time on the command line is read."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.configuration.address import check_rest
from pipeline.configuration.project import Project
from pipeline.errors import InputError

ProjectFolder = Annotated[Path, typer.Option("--project", "-C", help="Folder with springtide.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
UntilEnd = Annotated[bool, typer.Option("--until-end", help="Stop after what is in the logs now.")]
OutFile = Annotated[Path, typer.Option("--out", help="Parquet file to write.")]
HERE = Path()


def _checked(address: str | None) -> str | None:
    try:
        return None if address is None else check_rest(address)
    except ValueError as failure:
        raise InputError(f"--flink-master: {failure}") from None


FlinkMaster = Annotated[
    str | None,
    typer.Option("--flink-master", help="The cluster's REST address, in place of flink.rest.", callback=_checked),
]


def open_project(folder: Path, flink_master: str | None = None) -> Project:
    """The project in `folder`, its jobs on the cluster at `flink_master` where that is given. Raises ConfigError."""
    opened = Project.open(folder)
    if flink_master is None:
        return opened
    flink = opened.config.flink.model_copy(update={"rest": flink_master})
    return replace(opened, config=opened.config.model_copy(update={"flink": flink}))


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
