"""Commands that answer questions and change nothing: `versions`, `inspect`, `importance`."""

from typing import Annotated, Any

import numpy as np
import typer

from pipeline.cli.options import HERE, AsJson, ProjectFolder, open_project
from pipeline.cli.output import format_time, print_result
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.importance.convergence import convergence
from pipeline.importance.score import decayed, most_important
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store import VersionStore

FieldName = Annotated[str, typer.Argument(metavar="FIELD", help="A field of the configuration.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(versions)
    app.command()(inspect)
    app.command()(importance)


def versions(project: ProjectFolder = HERE, as_json: AsJson = False) -> None:
    """List the versions kept, with the digest of each; CURRENT is marked.

    Example: springtide versions --json
    """
    opened = open_project(project)
    store = VersionStore(opened)
    listed = []
    for shard in range(opened.config.logs.shards):
        current = store.current(shard)
        listed += [_version_row(summary, current) for summary in store.versions(shard)]
    print_result({"versions": listed}, as_json)


def inspect(
    field: FieldName,
    value: Annotated[str, typer.Argument(help="The raw value; of a crossed field column=value,column=value.")],
    project: ProjectFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Show one key: its row, counts, importance, convergence, and the precision serving holds it at.

    Example: springtide inspect user U49985
    """
    from pipeline.features.plan import FeaturePlan

    opened = open_project(project)
    plan = FeaturePlan(opened.config, opened.root)
    key = plan.key_of(field, _values_of(opened, field, value))
    commits = [(shard, commit) for shard, commit in _current_commits(opened) if field in commit.fields]
    found = [_key_row(opened, shard, commit, field, key) for shard, commit in commits]
    print_result({"field": field, "value": value, "key": key, "rows": [row for row in found if row]}, as_json)


def importance(
    field: FieldName,
    top: Annotated[int, typer.Option("--top", min=1, help="How many keys.")] = 20,
    project: ProjectFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """List the most important keys of a field, with their raw values where the dictionary knows them.

    Example: springtide importance item --top 10
    """
    opened = open_project(project)
    check_field(opened, field)
    listed = [
        row
        for shard, commit in _current_commits(opened)
        if field in commit.fields
        for row in _most_important(opened, shard, commit, field, top)
    ]
    listed.sort(key=lambda row: -row["importance"])
    print_result({"field": field, "keys": listed[:top]}, as_json)


def _current_commits(project: Project) -> list[tuple[int, Commit]]:
    store = VersionStore(project)
    currents = [(shard, store.current(shard)) for shard in range(project.config.logs.shards)]
    found = [(shard, store.restore(current)) for shard, current in currents if current]
    if not found:
        raise InputError(f"{project.versions} holds no version yet. run: springtide run train --until-end")
    return found


def check_field(project: Project, field: str) -> None:
    """Raises InputError for a field that the configuration does not have."""
    names = [f.name for f in project.config.fields]
    if field not in names:
        raise InputError(f"field {field} does not exist. known: {', '.join(names)}")


def _values_of(project: Project, field: str, value: str) -> dict[str, str]:
    check_field(project, field)
    columns = next(f.columns for f in project.config.fields if f.name == field)
    if len(columns) == 1:
        return {columns[0]: value}
    pairs = [part.partition("=") for part in value.split(",")]
    if any(not separator for _, separator, _ in pairs):
        example = ",".join(f"{name}=…" for name in columns)
        raise InputError(f"field {field} crosses {len(columns)} columns, got {value!r}. hint: {example}")
    return {name: text for name, _, text in pairs}


def packed_rows(project: Project, commit: Commit, field: str) -> Any:
    """[n] structured: the rows of one field in a restored version, in the order of its keys."""
    from pipeline.trainer.tables.table import row_dtype, state_floats

    config = next(f for f in project.config.fields if f.name == field)
    change = commit.fields[field]
    dtype = row_dtype(config.dim, state_floats(config.optimizer, config.dim))
    return change.rows.view(dtype).reshape(len(change.keys))


def _key_row(project: Project, shard: int, commit: Commit, field: str, key: int) -> dict[str, Any] | None:
    change = commit.fields[field]
    place = int(np.searchsorted(change.keys, np.uint64(key)))
    if place == len(change.keys) or int(change.keys[place]) != key:
        return None
    row = packed_rows(project, commit, field)[place]
    served = int(np.searchsorted(change.served_keys, np.uint64(key)))
    known = served < len(change.served_keys) and int(change.served_keys[served]) == key
    return {
        "shard": shard,
        "version": str(commit.id),
        "count": int(row["count"]),
        "last_seen": format_time(int(row["last_seen_s"]) * 1000),
        "importance": float(row["importance"]),
        "convergence": float(convergence(row["unsettled"])),
        "served_bits": int(change.served_bits[served]) if known else 0,
        "handle": int(change.served_handles[served]) if known else None,
        "weights": [float(w) for w in row["weights"]],
    }


def _most_important(project: Project, shard: int, commit: Commit, field: str, top: int) -> list[dict[str, Any]]:
    from pipeline.trainer.tables.dictionary import Dictionary

    rows, keys = packed_rows(project, commit, field), commit.fields[field].keys
    half_life_s = project.config.train.half_life_s
    importances, last_seen_s = np.ascontiguousarray(rows["importance"]), np.ascontiguousarray(rows["last_seen_s"])
    scores = decayed(importances, last_seen_s, commit.last_at_ms // 1000, half_life_s)
    order = most_important(keys, importances, last_seen_s, half_life_s, top)
    texts = Dictionary(project, shard).values(field, keys[order])
    return [
        {
            "value": text,
            "key": int(keys[i]),
            "importance": float(scores[i]),
            "convergence": float(convergence(rows["unsettled"][i])),
            "count": int(rows["count"][i]),
            "shard": shard,
        }
        for i, text in zip(order, texts, strict=True)
    ]


def _version_row(summary: Any, current: VersionId | None) -> dict[str, Any]:
    return {
        "version": str(summary.id),
        "parent": str(summary.parent) if summary.parent else None,
        "current": summary.id == current,
        "full": summary.full,
        "digest": summary.digest,
        "served_digest": summary.served_digest,
        "position": [summary.offset, summary.row],
        "log_time": format_time(summary.last_at_ms),
        "samples_seen": summary.samples_seen,
        "rows_touched": summary.rows_touched,
        "bytes": summary.size_bytes,
    }
