"""Commands that change serving or training: `publish`, `rollback`, `resume`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from pipeline.cli.terminal.lookup import current_versions
from pipeline.cli.terminal.options import (
    HERE,
    AsJson,
    DryRun,
    Keys,
    ProjectFolder,
    Where,
    open_project,
    read_range,
    read_time,
)
from pipeline.cli.terminal.output import print_message, print_result, user_output_on_stderr
from pipeline.configuration.model.parts import part_place
from pipeline.configuration.project import Project
from pipeline.errors import RollbackError
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log
from pipeline.publish.levels.level_publisher import publish_level
from pipeline.publish.levels.part import Part, find_part
from pipeline.publish.levels.schedule import PublishSchedule
from pipeline.quarantine.sample_mask import Choice
from pipeline.rollback.act import finish_rollbacks, roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.trainer.commit.full_on_command import publish_full
from pipeline.versions.deltas.delta import Level
from pipeline.versions.deltas.published_files import DeltaManifest, published_folder
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
    app.command()(resume)


def publish(
    level: Annotated[PublishLevel, typer.Option("--level", help="Level to publish.")],
    part: Annotated[
        str | None, typer.Option("--part", help="Part of the model to publish alone; default: the whole model.")
    ] = None,
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Publish the current version as files for serving. A full carries every row.

    With --part, the files hold the rows and dense weights that the part depends on, and no others.

    A running trainer publishes a full with its next commit; otherwise what was withheld is sent by a new version first.

    Example: springtide publish --level full
    """
    opened = open_project(project)
    place = None if part is None else opened.config.part(part).place
    log = open_log(opened)
    store = VersionStore(opened, log)
    versions = current_versions(opened, store)
    schedules = {id: PublishSchedule(opened.config.publish, store, id.shard, place) for id in versions}
    planned = {id: schedule.on_command(level.value) for id, schedule in schedules.items()}
    if not any(planned.values()):
        print_message(f"there are no changes since the last {level}")
    if dry_run:
        rows = [{"level": what, "version": str(id)} for id, what in planned.items() if what]
        print_result({"would_publish": rows, "dry_run": True}, as_json)
        return
    cut = None if part is None else find_part(opened.config, opened.root, part)
    published = [_publish(opened, log, store, (id.shard, what), cut) for id, what in planned.items() if what]
    print_result({"published": [_published_row(opened, f) for f in published if f], "dry_run": False}, as_json)


def rollback(  # noqa: PLR0913, the options of its target and of its quarantine
    before: Annotated[str | None, typer.Option("--before", help="Undo everything learned since TIME.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Restore this version.")] = None,
    quarantine: Annotated[
        str | None,
        typer.Option("--quarantine", metavar="FROM..TO", help="Range of sample times to exclude from training."),
    ] = None,
    where: Where = None,
    keys: Keys = None,
    finish: Annotated[bool, typer.Option("--finish", help="Finish unfinished rollbacks.")] = False,
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Roll training and serving back to before bad data. Samples since then are not learned again.

    With --where or --keys, only the samples that are chosen are not learned again, from then on without an end.

    Example: springtide rollback --before 2026-01-31T14:00:00Z --dry-run
    """
    opened = open_project(project)
    choice = Choice.read(opened.config, where, keys)
    log = open_log(opened)
    if finish:
        if choice is not None:
            raise RollbackError("--finish completes a rollback as it was planned. hint: leave out --where and --keys")
        print_result({"finished": [report.describe() for report in finish_rollbacks(opened, log)]}, as_json)
        return
    if (before is None) == (to is None):
        raise RollbackError("rollback needs either --before TIME or --to VERSION. run: springtide versions")
    with user_output_on_stderr():
        plan = plan_rollback(
            opened,
            log,
            before_ms=read_time(before) if before else None,
            to=VersionId.parse(to) if to else None,
            quarantine_ms=read_range(quarantine) if quarantine else None,
            choice=choice,
        )
    if dry_run:
        print_result({"plan": plan.describe()}, as_json)
        return
    print_result({"plan": plan.describe(), "done": roll_back(opened, log, plan).describe()}, as_json)


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


def _publish(
    project: Project, log: Log, store: VersionStore, planned: tuple[int, Level], part: Part | None
) -> DeltaManifest | None:
    """Publish the planned level of a shard."""
    shard, level = planned
    if level == "full":
        return publish_full(project, log, store, shard, part)
    return publish_level(project, log, store, shard, level, part)


def _published_row(project: Project, manifest: DeltaManifest) -> dict[str, Any]:
    version = VersionId(manifest.generation, manifest.shard, manifest.shards, manifest.to_sequence)
    part = manifest.model.get("part")
    place = None if part is None else part_place(part, manifest.model["part_digest"])
    return {
        "level": manifest.level,
        "version": str(version),
        "part": part,
        "path": str(published_folder(project.published, place) / f"{version.folder}/{manifest.file}"),
        "rows": manifest.rows,
        "removed": manifest.removed,
        "bytes": manifest.size_bytes,
        "sha256": manifest.sha256,
    }
