"""Commands that change what is served or learned: `publish`, `rollback`, `quarantine`, `resume`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from pipeline.cli.options import HERE, AsJson, DryRun, ProjectFolder, open_project, read_range, read_time
from pipeline.cli.output import format_time, print_message, print_result
from pipeline.errors import InputError, RollbackError
from pipeline.logs.open import open_log
from pipeline.publish.levels import publish_level
from pipeline.rollback.act import resume_pending, roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.state import VersionId
from pipeline.versions.store import VersionStore


class PublishLevel(StrEnum):
    """What `publish` writes."""

    INCREMENTAL = "incremental"
    FULL = "full"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(publish)
    app.command()(rollback)
    group = typer.Typer(help="Ranges of the samples log that training must not read.", no_args_is_help=True)
    group.command("add")(quarantine_add)
    group.command("list")(quarantine_list)
    group.command("remove")(quarantine_remove)
    app.add_typer(group, name="quarantine")
    app.command()(resume)


def publish(
    level: Annotated[PublishLevel, typer.Option("--level", help="What to write.")],
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Publish CURRENT now, as files for serving.

    Example: springtide publish --level full
    """
    opened = open_project(project)
    log, store = open_log(opened), VersionStore(opened)
    shards = [shard for shard in range(opened.config.logs.shards) if store.current(shard)]
    if not shards:
        raise InputError(f"{opened.versions} holds no version yet. run: springtide run train --until-end")
    if dry_run:
        print_result({"would_publish": [f"{level} of {store.current(shard)}" for shard in shards]}, as_json)
        return
    made = [publish_level(opened, log, store, shard, level.value) for shard in shards]
    listed = [{"level": m.level, "file": m.file, "bytes": m.size_bytes, "sha256": m.sha256} for m in made if m]
    if not listed:
        print_message(f"nothing is new since the last {level}")
    print_result({"published": listed}, as_json)


def rollback(
    before: Annotated[str | None, typer.Option("--before", help="Undo everything learned from TIME on.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Go back to this version.")] = None,
    quarantine: Annotated[
        str | None, typer.Option("--quarantine", metavar="FROM..TO", help="Sample times to skip from now on.")
    ] = None,
    finish: Annotated[bool, typer.Option("--finish", help="Carry a half-done rollback to its end.")] = False,
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take training and serving back to before bad data. What came since is not learned again.

    Example: springtide rollback --before 2026-01-31T14:00:00Z --dry-run
    """
    opened = open_project(project)
    log = open_log(opened)
    if finish:
        print_result({"finished": [report.describe() for report in resume_pending(opened, log)]}, as_json)
        return
    if (before is None) == (to is None):
        raise RollbackError("rollback needs one of --before TIME and --to VERSION. run: springtide versions")
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
    span: Annotated[str, typer.Argument(metavar="FROM..TO", help="Sample times, the end exclusive.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for whoever reads the list.")] = "by the operator",
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Keep training from a range of sample times.

    Example: springtide quarantine add 2026-01-31T14:00:00Z..2026-01-31T16:00:00Z --reason bots
    """
    opened = open_project(project)
    entry = Quarantine(0, reason, times_ms=read_range(span))
    id = None if dry_run else VersionStore(opened).ledger.add_quarantine(entry)
    print_result({"id": id, "from": format_time(entry.times_ms[0]), "to": format_time(entry.times_ms[1])}, as_json)  # type: ignore[index]


def quarantine_list(project: ProjectFolder = HERE, as_json: AsJson = False) -> None:
    """List all quarantines, removed ones too.

    Example: springtide quarantine list
    """
    store = VersionStore(open_project(project))
    print_result({"quarantines": [_quarantine_row(entry) for entry in store.ledger.all_quarantines()]}, as_json)


def quarantine_remove(
    id: Annotated[int, typer.Argument(help="The number that `quarantine list` shows.")],
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let training read a range again. What was skipped already stays skipped until a rollback.

    Example: springtide quarantine remove 1
    """
    store = VersionStore(open_project(project))
    if not dry_run:
        store.ledger.remove_quarantine(id)
    print_result({"removed": id, "dry_run": dry_run}, as_json)


def resume(project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Let halted trainers go on, after the bad data was quarantined.

    Example: springtide resume
    """
    opened = open_project(project)
    ledger = VersionStore(opened).ledger
    halted = [shard for shard in range(opened.config.logs.shards) if ledger.halted(shard)]
    if not dry_run:
        for shard in halted:
            ledger.clear_halt(shard)
    print_result({"resumed_shards": halted, "dry_run": dry_run}, as_json)


def _quarantine_row(entry: Quarantine) -> dict[str, Any]:
    row: dict[str, Any] = {"id": entry.id, "reason": entry.reason}
    if entry.times_ms:
        row |= {"from": format_time(entry.times_ms[0]), "to": format_time(entry.times_ms[1])}
    else:
        row |= {"shard": entry.shard, "positions": entry.positions}
    return row | {"added_at": format_time(entry.added_at_ms), "removed_at": format_time(entry.removed_at_ms)}
