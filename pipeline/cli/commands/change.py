"""Commands that change serving or training: `publish`, `rollback`, `quarantine`, `resume`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from pipeline.cli.terminal.lookup import current_versions
from pipeline.cli.terminal.options import HERE, AsJson, DryRun, ProjectFolder, open_project, read_range, read_time
from pipeline.cli.terminal.output import print_message, print_result
from pipeline.cli.terminal.values import format_time
from pipeline.errors import RollbackError
from pipeline.logs.open import open_log
from pipeline.publish.level_publisher import publish_level
from pipeline.rollback.act import resume_pending, roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore


class PublishLevel(StrEnum):
    """The levels that `publish` writes."""

    INCREMENTAL = "incremental"
    FULL = "full"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(publish)
    app.command()(rollback)
    group = typer.Typer(help="Ranges of the samples log that training skips.", no_args_is_help=True)
    group.command("add")(quarantine_add)
    group.command("list")(quarantine_list)
    group.command("remove")(quarantine_remove)
    app.add_typer(group, name="quarantine")
    app.command()(resume)


def publish(
    level: Annotated[PublishLevel, typer.Option("--level", help="Level to publish.")],
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Publish the current version as files for serving.

    Example: springtide publish --level full
    """
    opened = open_project(project)
    log, store = open_log(opened), VersionStore(opened)
    versions = current_versions(opened, store)
    if dry_run:
        print_result({"would_publish": [f"{level} of {id}" for id in versions]}, as_json)
        return
    published = [publish_level(opened, log, store, id.shard, level.value) for id in versions]
    rows = [{"level": f.level, "file": f.file, "bytes": f.size_bytes, "sha256": f.sha256} for f in published if f]
    if not rows:
        print_message(f"there are no changes since the last {level}")
    print_result({"published": rows}, as_json)


def rollback(
    before: Annotated[str | None, typer.Option("--before", help="Undo everything learned since TIME.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Restore this version.")] = None,
    quarantine: Annotated[
        str | None,
        typer.Option("--quarantine", metavar="FROM..TO", help="Range of sample times to exclude from training."),
    ] = None,
    finish: Annotated[bool, typer.Option("--finish", help="Finish interrupted rollbacks.")] = False,
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Roll training and serving back to before bad data. Samples since then are not learned again.

    Example: springtide rollback --before 2026-01-31T14:00:00Z --dry-run
    """
    opened = open_project(project)
    log = open_log(opened)
    if finish:
        print_result({"finished": [report.describe() for report in resume_pending(opened, log)]}, as_json)
        return
    if (before is None) == (to is None):
        raise RollbackError("rollback needs either --before TIME or --to VERSION. run: springtide versions")
    plan = plan_rollback(
        opened,
        log,
        before_ms=read_time(before) if before else None,
        to=VersionId.parse(to) if to else None,
        quarantine_ms=read_range(quarantine) if quarantine else None,
    )
    if dry_run:
        print_result({"plan": plan.describe()}, as_json)
        return
    print_result({"plan": plan.describe(), "done": roll_back(opened, log, plan).describe()}, as_json)


def quarantine_add(
    times: Annotated[str, typer.Argument(metavar="FROM..TO", help="Range of sample times, end exclusive.")],
    reason: Annotated[str, typer.Option("--reason", help="Reason to show in the list.")] = "by the operator",
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Exclude a range of sample times from training.

    Example: springtide quarantine add 2026-01-31T14:00:00Z..2026-01-31T16:00:00Z --reason bots
    """
    opened = open_project(project)
    entry = Quarantine(0, reason, times_ms=read_range(times))
    id = None if dry_run else VersionStore(opened).ledger.quarantines.add(entry)
    print_result({"id": id, "from": format_time(entry.times_ms[0]), "to": format_time(entry.times_ms[1])}, as_json)  # type: ignore[index]


def quarantine_list(project: ProjectFolder = HERE, as_json: AsJson = False) -> None:
    """List all quarantines, including removed ones.

    Example: springtide quarantine list
    """
    store = VersionStore(open_project(project))
    print_result({"quarantines": [_quarantine_row(entry) for entry in store.ledger.quarantines.all()]}, as_json)


def quarantine_remove(
    id: Annotated[int, typer.Argument(help="Id of the quarantine in `quarantine list`.")],
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """End a quarantine. Samples that training has already skipped remain skipped until a rollback.

    Example: springtide quarantine remove 1
    """
    store = VersionStore(open_project(project))
    if not dry_run:
        store.ledger.quarantines.remove(id)
    print_result({"removed": id, "dry_run": dry_run}, as_json)


def resume(project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Resume halted trainers. Quarantine the bad data first.

    Example: springtide resume
    """
    opened = open_project(project)
    ledger = VersionStore(opened).ledger
    halted = [shard for shard in range(opened.config.logs.shards) if ledger.halts.get(shard)]
    if not dry_run:
        for shard in halted:
            ledger.halts.clear(shard)
    print_result({"resumed_shards": halted, "dry_run": dry_run}, as_json)


def _quarantine_row(entry: Quarantine) -> dict[str, Any]:
    row: dict[str, Any] = {"id": entry.id, "reason": entry.reason}
    if entry.times_ms:
        row |= {"from": format_time(entry.times_ms[0]), "to": format_time(entry.times_ms[1])}
    else:
        row |= {"shard": entry.shard, "positions": entry.positions}
    return row | {"added_at": format_time(entry.added_at_ms), "removed_at": format_time(entry.removed_at_ms)}
