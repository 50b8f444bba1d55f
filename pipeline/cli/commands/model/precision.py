"""The command `precision`: how rows are served, what their bytes are worth, and other prices of a byte. Read-only."""

import errno
import os
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.terminal.lookup import current_versions, find_table
from pipeline.cli.terminal.options import HERE, AsJson, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_result, user_output_on_stderr
from pipeline.cli.terminal.precision_report import draw, result_of_search, result_of_tables
from pipeline.cli.terminal.progress import ProgressBars
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.logs.open import open_log
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(precision)


def precision(
    table: Annotated[str | None, typer.Argument(metavar="TABLE", help="A table, or a field that reads it.")] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=2, help="Also score the newest samples of each shard."),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="--samples: whose scores; by default the first with a logistic loss.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="--samples: PNG file to write.")] = None,
    project: ProjectFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Show per table how precisely serving holds the rows of CURRENT, and what another byte would buy.

    Losses are relative to the trainer's. A row is sent if each of its bytes takes off more loss than the price.
    --samples also serves all rows at a range of prices and compares predictions with those of the trainer's rows:
    loss, bytes of a snapshot, KS distance of the scores and their calibration by decile.

    Example: springtide precision --samples 4000 --out precision.png
    """
    opened = open_project(project)
    for option, value in (("--out", out), ("--label", label)):
        if value is not None and samples is None:
            example = "springtide precision --samples 4000"
            raise InputError(f"{option} {value} is of use with --samples only. hint: {example}")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: {os.strerror(errno.ENOENT)}. hint: choose another --out")
    chosen = None if table is None else find_table(opened, table).name
    with closing(VersionStore(opened)) as store, user_output_on_stderr():
        ids = current_versions(opened, store)
        result = result_of_tables(opened, [store.restore(id) for id in ids], chosen)
    if samples is not None:
        result |= _search(opened, ids, samples, label, out, as_json)
    print_result(result, as_json)


def _search(
    project: Project, ids: list[VersionId], samples: int, label: str | None, out: Path | None, as_json: bool
) -> dict[str, Any]:
    from pipeline.trainer.run.precision import FACTORS, search_prices

    done, total = count(1), len(ids) * len(FACTORS)
    with closing(open_log(project)) as log, user_output_on_stderr():
        if as_json:
            found = search_prices(project, log, ids, samples, lambda: None, label)
        else:
            with ProgressBars() as bars:
                show = bars.add("prices")
                found = search_prices(project, log, ids, samples, lambda: show(next(done), total), label)
    result = result_of_search(project, found)
    if out is not None:
        draw(found, out)
        result["written"] = str(out)
    return result
