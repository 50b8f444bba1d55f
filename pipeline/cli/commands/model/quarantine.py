"""The commands of `quarantine`: what training skips, by time, by offsets of the log, or by what samples hold."""

from contextlib import closing
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline.cli.terminal.options import (
    HERE,
    AsJson,
    DryRun,
    Keys,
    ProjectFolder,
    Where,
    open_project,
    read_offsets,
    read_range,
    read_time,
)
from pipeline.cli.terminal.output import print_result, user_output_on_stderr
from pipeline.cli.terminal.values import format_range, format_time
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.logs.open import open_log
from pipeline.quarantine.effect import Effect, effect_of
from pipeline.quarantine.sample_mask import Choice, SampleMask
from pipeline.versions.ledger.quarantine import ANY_TIME_MS, Quarantine
from pipeline.versions.store.version_store import VersionStore

_Id = Annotated[int, typer.Argument(help="Id of the quarantine in `quarantine list`.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(help="Samples that training skips.", no_args_is_help=True)
    group.command("add")(add)
    group.command("list")(list_all)
    group.command("show")(show)
    group.command("remove")(remove)
    app.add_typer(group, name="quarantine")


def add(  # noqa: PLR0913, the options of three kinds of quarantine
    times: Annotated[
        str | None, typer.Argument(metavar="FROM..TO", help="Range of sample times, end exclusive.")
    ] = None,
    offsets: Annotated[
        str | None,
        typer.Option("--offsets", metavar="FROM..TO", help="Range of offsets in the samples topic, end exclusive."),
    ] = None,
    shard: Annotated[int | None, typer.Option("--shard", help="The shard (partition) of --offsets.")] = None,
    where: Where = None,
    keys: Keys = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="First of the sample times of --where or --keys.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="End of the sample times, exclusive.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Reason to show in the list.")] = "by the operator",
    project: ProjectFolder = HERE,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Exclude samples from training: of a time, of offsets of one shard, or those of a condition or a list of keys.

    A condition compares columns of samples as in SQL: = != < <= > >=, in, between, like, is null, and, or, not. The
    result shows how many samples of the log it chooses, and what they touch in the model. Without --from and --to it
    holds for all times, also those to come.

    Records in quarantined offsets are not even decoded: --shard 0 --offsets 12..13 is the way past a foreign or
    damaged record at offset 12 of partition 0.

    Example: springtide quarantine add 2026-01-31T14:00:00Z..2026-01-31T16:00:00Z --reason bots
    """
    opened = open_project(project)
    choice = Choice.read(opened.config, where, keys)
    if choice is None:
        if start is not None or end is not None:
            raise InputError("--from and --to need --where or --keys. hint: springtide quarantine add FROM..TO")
        entry = _range(opened, times, offsets, shard, reason)
    else:
        if offsets is not None or shard is not None:
            raise InputError("--where and --keys choose samples of all shards by time. hint: no --offsets, no --shard")
        entry = Quarantine(0, reason, _chosen_times(times, start, end), selection=choice.selection)
    entry.check()
    effect = None if choice is None else _effect(opened, entry, choice)
    id = None if dry_run else _add(opened, entry, choice)
    skipped = {} if effect is None else {"skipped": asdict(effect)}
    print_result({"id": id, **_range_of(entry), **skipped, "dry_run": dry_run}, as_json)


def list_all(project: ProjectFolder = HERE, as_json: AsJson = False) -> None:
    """List all quarantines, including removed ones.

    Example: springtide quarantine list
    """
    with closing(VersionStore(open_project(project))) as store:
        print_result({"quarantines": [_row(entry) for entry in store.ledger.quarantines.all()]}, as_json)


def show(id: _Id, project: ProjectFolder = HERE, as_json: AsJson = False) -> None:
    """Show one quarantine; of chosen samples also how many there are in the log, and what they touch in the model.

    Example: springtide quarantine show 1
    """
    opened = open_project(project)
    with closing(VersionStore(opened)) as store:
        entry = store.ledger.quarantines.get(id)
    skipped: dict[str, Any] = {}
    if entry.selection is not None:
        skipped = {"skipped": asdict(_effect(opened, entry, Choice.stored(opened, entry.selection)))}
    print_result({**_row(entry), **skipped}, as_json)


def remove(id: _Id, project: ProjectFolder = HERE, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """End a quarantine. Samples that training has already skipped remain skipped until a rollback.

    Example: springtide quarantine remove 1
    """
    with closing(VersionStore(open_project(project))) as store:
        if not dry_run:
            store.ledger.quarantines.remove(id)
    print_result({"removed": id, "dry_run": dry_run}, as_json)


def _add(project: Project, entry: Quarantine, choice: Choice | None) -> int:
    """Store a quarantine, after the keys that it names; returns its id."""
    if choice is not None:
        choice.store(project)
    with closing(VersionStore(project)) as store:
        return store.ledger.quarantines.add(entry)


def _effect(project: Project, entry: Quarantine, choice: Choice) -> Effect:
    """What the chosen samples of the whole log touch."""
    with closing(open_log(project)) as log, closing(VersionStore(project, log)) as store, user_output_on_stderr():
        return effect_of(project, log, store, SampleMask.planned(entry, choice))


def _range(project: Project, times: str | None, offsets: str | None, shard: int | None, reason: str) -> Quarantine:
    """The quarantine of a complete range. Raises InputError."""
    if (times is None) == (offsets is None):
        raise InputError("quarantine needs either times or offsets. hint: FROM..TO, or --shard 0 --offsets FROM..TO")
    if times is not None:
        return Quarantine(0, reason, times_ms=read_range(times), shard=shard)
    shards = project.config.logs.shards
    shard = 0 if shard is None and shards == 1 else shard
    if shard is None or not 0 <= shard < shards:
        raise InputError(f"--shard is {shard}, the project has {shards}. hint: --shard 0 to {shards - 1}")
    first, last = read_offsets(str(offsets))
    return Quarantine(0, reason, positions=((first, 0), (last, 0)), shard=shard)


def _chosen_times(times: str | None, start: str | None, end: str | None) -> tuple[int, int]:
    """The times in ms of a quarantine of chosen samples; without an argument all there are. Raises InputError."""
    if times is None:
        first, last = ANY_TIME_MS
        return read_time(start) if start is not None else first, read_time(end) if end is not None else last
    if start is not None or end is not None:
        raise InputError(f"times are given twice, as {times} and by --from or --to. hint: leave one out")
    return read_range(times)


def _row(entry: Quarantine) -> dict[str, Any]:
    return {
        "id": entry.id,
        "reason": entry.reason,
        **_range_of(entry),
        "added_at": format_time(entry.added_at_ms),
        "removed_at": format_time(entry.removed_at_ms),
    }


def _range_of(entry: Quarantine) -> dict[str, Any]:
    """Times and what is chosen of them, or shard and offsets; a position inside a record is `offset/row`."""
    if entry.selection is not None:
        assert entry.times_ms is not None
        return {**entry.selection.describe(), **format_range(*entry.times_ms)}
    if entry.times_ms is not None:
        return {"from": format_time(entry.times_ms[0]), "to": format_time(entry.times_ms[1])}
    assert entry.positions is not None
    start, end = (str(offset) if row == 0 else f"{offset}/{row}" for offset, row in entry.positions)
    return {"shard": entry.shard, "offsets": f"{start}..{end}"}
