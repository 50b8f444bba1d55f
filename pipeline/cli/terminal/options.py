"""Options shared by commands, and the parsing of times."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pipeline.configuration.deployment.address import check_rest
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.process.clock import LATEST_MS
from pipeline.process.instant import parse_instant

ProjectFolder = Annotated[Path, typer.Option("--project", "-C", help="Folder with springtide.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done without doing it.")]
UntilEnd = Annotated[bool, typer.Option("--until-end", help="Stop at the current end of the logs.")]
FieldName = Annotated[
    str, typer.Argument(metavar="FIELD", help="A field of the configuration, or a table: its first field.")
]
TableName = Annotated[
    str, typer.Argument(metavar="TABLE", help="A table of the configuration, or a field: the table that it reads.")
]
OutFile = Annotated[Path, typer.Option("--out", help="Parquet file to write.")]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="CONDITION", help="Only samples with, say, campaign = 'x' and app_version < 7."),
]
Keys = Annotated[
    tuple[str, Path] | None,
    typer.Option("--keys", metavar="FIELD FILE", help="Only samples with a value of FIELD among the lines of FILE."),
]
HERE = Path()
_NUMBER = re.compile("[0-9]+")
_OFFSET = re.compile("[0-9]{1,18}")
_MAX_DIGITS = 40


def _checked(address: str | None) -> str | None:
    try:
        return None if address is None else check_rest(address)
    except ValueError as failure:
        raise InputError(f"--flink-master: {failure}") from None


FlinkMaster = Annotated[
    str | None,
    typer.Option("--flink-master", help="REST address of the cluster; overrides flink.rest.", callback=_checked),
]


def open_project(folder: Path, flink_master: str | None = None) -> Project:
    """The project in `folder`; `flink_master` overrides its cluster. Raises ConfigError."""
    opened = Project.open(folder)
    if flink_master is None:
        return opened
    flink = opened.config.flink.model_copy(update={"rest": flink_master})
    return replace(opened, config=opened.config.model_copy(update={"flink": flink}))


def read_time(text: str) -> int:
    """Milliseconds since 1970 of a time in ISO 8601 (UTC by default) or in milliseconds.

    Raises InputError, also for a time before 1970 or after the year 9999.

    >>> read_time("2019-11-09T00:01:13") == read_time("1573257673000")
    True
    """
    if _NUMBER.fullmatch(text):
        # Python refuses to convert thousands of digits.
        at_ms = int(text[:_MAX_DIGITS])
        unit = "milliseconds since 1970, and this looks like another unit"
    else:
        try:
            at_ms = parse_instant(text)
        except ValueError:
            raise InputError(f"time {text} is neither ISO 8601 nor milliseconds. hint: 2026-01-31T14:00:00Z") from None
        unit = "2026-01-31T14:00:00Z"
    if not 0 <= at_ms <= LATEST_MS:
        raise InputError(f"time {text[:_MAX_DIGITS]} is not between 1970 and 9999. hint: {unit}")
    return at_ms


def read_offsets(text: str) -> tuple[int, int]:
    """The two offsets of `FROM..TO`, end exclusive. Raises InputError unless FROM is before TO."""
    start, separator, end = text.partition("..")
    if not separator or not _OFFSET.fullmatch(start) or not _OFFSET.fullmatch(end) or int(start) >= int(end):
        raise InputError(f"offsets {text[:60]} are no range of offsets. hint: FROM..TO, the end is exclusive: 12..13")
    return int(start), int(end)


def read_range(text: str) -> tuple[int, int]:
    """The two times of `FROM..TO` in milliseconds. Raises InputError unless FROM is before TO."""
    start, separator, end = text.partition("..")
    if not separator:
        raise InputError(f"range {text} has no two dots. hint: 2026-01-31T14:00:00Z..2026-01-31T16:00:00Z")
    first, last = read_time(start), read_time(end)
    if first >= last:
        raise InputError(f"range {text} ends at {end}, not after its start {start}. hint: FROM..TO")
    return first, last
