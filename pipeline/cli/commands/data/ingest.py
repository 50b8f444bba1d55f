"""Commands that append to the input logs: `ingest` and `heartbeat`."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.arrays.block import EventKind
from pipeline.cli.terminal.options import HERE, AsJson, DryRun, ProjectFolder, open_project, read_time
from pipeline.cli.terminal.output import print_message, print_result, user_output_on_stderr
from pipeline.cli.terminal.progress import ProgressBars
from pipeline.cli.terminal.values import format_time
from pipeline.errors import InputError
from pipeline.ingest.event_writer import append_heartbeat
from pipeline.ingest.ingest import IngestReport, dry_run_ingest, ingest
from pipeline.ingest.items import ingest_items
from pipeline.logs.open import open_log

Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="csv, csv.gz, jsonl, parquet or avro.")]
Again = Annotated[bool, typer.Option("--again", help="Append files again that were ingested before.")]


class _Kinds(TyperGroup):
    """Commands by kind of event: one with a name of the user's choice is run by `feedback`, with its name first."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["feedback", *args]
        return super().resolve_command(ctx, args)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(cls=_Kinds, help="Append events from files to the logs.", no_args_is_help=True)
    group.command("impressions")(impressions)
    group.command("clicks")(clicks)
    group.command("feedback")(feedback)
    group.command("items")(items)
    app.add_typer(group, name="ingest")
    app.command()(heartbeat)


def impressions(
    files: Files, project: ProjectFolder = HERE, again: Again = False, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Append impressions. Files ingested before are skipped; an interrupted file is continued.

    Example: springtide ingest impressions monday.parquet tuesday.csv.gz
    """
    _ingest("impressions", files, project, as_json, again, dry_run)


def clicks(
    files: Files, project: ProjectFolder = HERE, again: Again = False, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Append clicks. Files ingested before are skipped; an interrupted file is continued.

    Example: springtide ingest clicks monday-clicks.jsonl
    """
    _ingest("clicks", files, project, as_json, again, dry_run)


def feedback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="NAME of its table events.NAME.")],
    files: Files,
    project: ProjectFolder = HERE,
    again: Again = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Append events of another feedback, or candidates that were not shown, as `ingest NAME` does.

    Files are treated as those of clicks.

    Example: springtide ingest feedback purchase monday-purchases.jsonl
    """
    _ingest(name, files, project, as_json, again, dry_run)


def items(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="A JSON object in each line.")],
    project: ProjectFolder = HERE,
    again: Again = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Append new, changed and removed items of recall to their topic. Nothing is appended if a line is wrong.

    A line has the columns of an item, or its name and "$removed": true. The last one of an item counts.
    A file that was appended before appends nothing.

    Example: springtide ingest items changed-items.jsonl
    """
    opened = open_project(project)
    with user_output_on_stderr():
        report = ingest_items(opened, open_log(opened), files, again, dry_run)
    for path in report.known:
        print_message(f"{path} was appended before, nothing of it is appended now. hint: --again")
    names = ("would_put", "would_remove") if dry_run else ("put", "removed")
    print_result(dict(zip(names, (report.put, report.removed), strict=True)), as_json)


def heartbeat(
    at: Annotated[str, typer.Argument(metavar="TIME", help="ISO 8601 or milliseconds since 1970.")],
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Declare all inputs complete before TIME, which closes the windows that end by then.

    Events with an earlier time that are appended later are late. Use it after the last file of a closed set.

    Example: springtide heartbeat 2026-02-01T00:00:00Z
    """
    opened = open_project(project)
    at_ms = read_time(at)
    if not dry_run:
        append_heartbeat(opened, open_log(opened), at_ms)
    print_result({"complete_before": format_time(at_ms), "dry_run": dry_run}, as_json)


def _ingest(kind: EventKind, files: list[Path], project: Path, as_json: bool, again: bool, dry_run: bool) -> None:
    opened = open_project(project)
    _check_kind(kind, opened.config.input_topics)
    if dry_run:
        report = dry_run_ingest(opened, kind, files)
        counts = {"would_append": report.rows, "would_set_aside": report.bad_rows, "would_be_late": report.late_rows}
        _print(kind, counts, report, as_json)
        return
    with ProgressBars() as bars:
        report = ingest(opened, open_log(opened), kind, files, bars.add(f"ingest {kind}, bytes"), again)
    counts = asdict(report)
    del counts["warnings"], counts["first_bad"]
    _print(kind, counts, report, as_json)


def _check_kind(kind: EventKind, known: Iterable[EventKind]) -> None:
    if kind not in known:
        raise InputError(f"there are no events {kind}, known: {', '.join(known)}. hint: declare [events.{kind}]")


def _print(kind: EventKind, counts: dict[str, Any], report: IngestReport, as_json: bool) -> None:
    for warning in report.warnings:
        print_message(f"warning: {warning}")
    for bad in report.first_bad:
        print_message(f"first bad row: {bad}")
    more = {"first_bad": report.first_bad, "warnings": report.warnings} if as_json else {}
    print_result({"kind": kind, **counts} | more, as_json)
