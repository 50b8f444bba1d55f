"""Commands that show versions and rows: `versions`, `inspect`. Read-only."""

from typing import Annotated, Any

import numpy as np
import typer

from pipeline.cli.terminal.lookup import current_commits, find_field, packed_rows
from pipeline.cli.terminal.options import HERE, AsJson, FieldName, ProjectFolder, open_project
from pipeline.cli.terminal.output import print_result, user_output_on_stderr
from pipeline.cli.terminal.values import format_time
from pipeline.cli.terminal.version_bytes import as_tables, bytes_of_versions
from pipeline.configuration.model.fields import FieldConfig
from pipeline.configuration.project import Project
from pipeline.errors import InputError
from pipeline.importance.convergence import convergence
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store.version_store import VersionStore


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(versions)
    app.command()(inspect)


def versions(
    sizes: Annotated[bool, typer.Option("--bytes", help="Show what the delta of each version sent.")] = False,
    project: ProjectFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """List the stored versions and their digests, and mark the current one.

    --bytes shows instead, for the delta of each version: its bytes by part, the rows sent, by bits, and withheld, the
    loss of serving that it predicts, and the one measured on the batch after it.

    Example: springtide versions --json
    """
    opened = open_project(project)
    store = VersionStore(opened)
    rows = []
    for shard in range(opened.config.logs.shards):
        if sizes:
            rows += bytes_of_versions(store, shard)
            continue
        current = store.current(shard)
        rows += [_version_row(summary, current) for summary in store.versions(shard)]
    print_result(as_tables(rows) if sizes and not as_json else {"versions": rows}, as_json)


def inspect(
    field: FieldName,
    value: Annotated[str, typer.Argument(help="Raw value; for a crossed field column=value,column=value.")],
    project: ProjectFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Show the row of one key: count, importance, convergence, precision in serving, weights.

    Example: springtide inspect user U49985
    """
    from pipeline.features.plan import FeaturePlan

    opened = open_project(project)
    with user_output_on_stderr():
        plan = FeaturePlan(opened.config, opened.root)
    found = find_field(opened, field)
    key, table = plan.key_of(found.name, _column_values(found, value)), found.table_name
    rows = [_key_row(opened, shard, commit, table, key) for shard, commit in current_commits(opened, table)]
    result = {"field": found.name, "table": table, "value": value, "key": str(key)}
    print_result({**result, "rows": [row for row in rows if row]}, as_json)


def _column_values(field: FieldConfig, value: str) -> dict[str, str]:
    """The raw value of each column of a field. Raises InputError."""
    if len(field.columns) == 1:
        return {field.columns[0]: value}
    pairs = [part.partition("=") for part in value.split(",")]
    if any(not separator for _, separator, _ in pairs):
        example = ",".join(f"{name}=…" for name in field.columns)
        raise InputError(f"field {field.name} crosses {len(field.columns)} columns, got {value!r}. hint: {example}")
    return {name: text for name, _, text in pairs}


def _key_row(project: Project, shard: int, commit: Commit, table: str, key: int) -> dict[str, Any] | None:
    change = commit.fields[table]
    index = int(np.searchsorted(change.keys, np.uint64(key)))
    if index == len(change.keys) or int(change.keys[index]) != key:
        return None
    row = packed_rows(project, commit, table)[index]
    served = int(np.searchsorted(change.served_keys, np.uint64(key)))
    known = served < len(change.served_keys) and int(change.served_keys[served]) == key
    return {
        "shard": shard,
        "version": str(commit.id),
        "count": int(row["count"]),
        "last_seen": format_time(int(row["last_seen_s"]) * 1000),
        "importance": float(row["importance"]),
        "convergence": float(convergence(row["unsettled"])),
        "curvature": float(row["curvature"]),
        "served_bits": int(change.served_bits[served]) if known else 0,
        "handle": str(change.served_handles[served]) if known else None,
        "weights": [float(w) for w in row["weights"]],
    }


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
