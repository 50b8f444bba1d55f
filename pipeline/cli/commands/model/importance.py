"""The command `importance`: which keys of a table matter, and which inputs of the model. Read-only."""

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pipeline.cli.terminal.input_report import draw, result_of
from pipeline.cli.terminal.lookup import current_commits, current_versions, find_table, packed_rows
from pipeline.cli.terminal.options import HERE, AsJson, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_result, user_output_on_stderr
from pipeline.cli.terminal.progress import ProgressBars
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.importance.convergence import convergence
from pipeline.importance.fields.estimate import Advance
from pipeline.importance.fields.inputs import InputColumns
from pipeline.importance.fields.report import Method, report_fields
from pipeline.importance.score import decayed, most_important
from pipeline.logs.open import open_log
from pipeline.versions.state import Commit
from pipeline.versions.store.version_store import VersionStore

_TOP, _SAMPLES, _SEED = 20, 4_000, 1

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="TABLE", help="A table, or a field: the table that it reads. With --fields, the inputs to show."
    ),
]


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(importance)


def importance(  # noqa: PLR0913, the options of two questions
    table: Name = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help=f"Number of keys; default: {_TOP}.")] = None,
    fields: Annotated[bool, typer.Option("--fields", help="Measure fields, tables and dense inputs.")] = False,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=2, help=f"--fields: newest samples of a shard; default: {_SAMPLES}."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help=f"--fields: of shuffles; default: {_SEED}.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="--fields: PNG file to write.")] = None,
    project: ProjectFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """List the most important keys of a table; with --fields, how much each input of the model matters.

    --fields shows, in the unit of the loss: the trainer's live estimate; what shuffling the input's values costs, by
    permutation of the newest samples; its share of what all inputs together achieve (Shapley value); and what leaving
    it out would free.

    Example: springtide importance item --top 10
    """
    if fields:
        if top is not None:
            raise InputError(f"--top {top} is of no use with --fields, which shows every input. hint: leave it out")
        method = Method(samples=samples or _SAMPLES, seed=_SEED if seed is None else seed)
        _of_inputs(open_project(project), table, method, out, as_json)
        return
    for name, value in (("--samples", samples), ("--seed", seed), ("--out", out)):
        if value is not None:
            raise InputError(f"{name} {value} is of use with --fields only. hint: springtide importance --fields")
    if table is None:
        raise InputError("importance of rows needs a table. hint: springtide importance TABLE, or --fields")
    opened = open_project(project)
    found = find_table(opened, table).name
    shown = top or _TOP
    rows = [
        row for shard, commit in current_commits(opened, found) for row in _rows(opened, shard, commit, found, shown)
    ]
    rows.sort(key=lambda row: -row["importance"])
    print_result({"table": found, "keys": rows[:shown]}, as_json)


def _of_inputs(project: Project, name: str | None, method: Method, out: Path | None, as_json: bool) -> None:
    """Measure and print the inputs of the model, or those that `name` chooses."""
    from pipeline.trainer.run.evaluation import evaluate_shards

    columns = InputColumns.of(project.config)
    chosen = _chosen(columns, name)
    if out is not None and not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: {os.strerror(errno.ENOENT)}. hint: choose another --out")
    with closing(VersionStore(project)) as store:
        ids = current_versions(project, store)
    with closing(open_log(project)) as log, user_output_on_stderr():
        shards = evaluate_shards(project, log, ids, method.samples)
        with _progress(len(ids) * method.evaluations(columns), as_json) as advance:
            report = report_fields(columns, shards, method, advance)
    result = result_of(report, chosen) | {"versions": [str(id) for id in ids]}
    if out is not None:
        draw(report, out)
        result["written"] = str(out)
    print_result(result, as_json)


def _chosen(columns: InputColumns, name: str | None) -> set[str]:
    """The inputs to show: all, one, or the fields of a table. Raises InputError."""
    if name is None:
        return set(columns.names)
    known = {each: {each} for each in columns.names}
    known = {table: {columns.names[i] for i in read} for table, read in columns.tables.items()} | known
    if name not in known:
        raise InputError(f"input {name} does not exist. known: {', '.join(known)}")
    return known[name]


@contextmanager
def _progress(evaluations: int, as_json: bool) -> Iterator[Advance]:
    """A bar of the evaluations; none with --json."""
    if as_json:
        yield lambda: None
        return
    done = count(1)
    with ProgressBars() as bars:
        show = bars.add("evaluations")
        show(0, evaluations)
        yield lambda: show(next(done), evaluations)


def _rows(project: Project, shard: int, commit: Commit, table: str, top: int) -> list[dict[str, Any]]:
    from pipeline.trainer.tables.dictionary import Dictionary

    rows, keys = packed_rows(project, commit, table), commit.fields[table].keys
    half_life_s = project.config.train.half_life_s
    importances, last_seen_s = np.ascontiguousarray(rows["importance"]), np.ascontiguousarray(rows["last_seen_s"])
    scores = decayed(importances, last_seen_s, commit.last_at_ms // 1000, half_life_s)
    order = most_important(keys, importances, last_seen_s, half_life_s, top)
    texts = Dictionary(project, shard).values(table, keys[order])
    return [
        {
            "value": text,
            "key": str(keys[i]),
            "importance": float(scores[i]),
            "convergence": float(convergence(rows["unsettled"][i])),
            "count": int(rows["count"][i]),
            "shard": shard,
        }
        for i, text in zip(order, texts, strict=True)
    ]
