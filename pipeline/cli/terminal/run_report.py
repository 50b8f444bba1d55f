"""The reports of `springtide run` as lines and tables that fit a screen; --json prints them in full."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.cli.terminal.values import format_time

_HOURS = 12
"""Hours of the progressive validation that are listed."""


def summarize_training(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a trainer: its counts, a row per shard, and the scores of all samples and of the last hours."""
    shards, counts = report["shards"], {name: report[name] for name in ("samples", "batches", "commits")}
    return {**counts, "shards": [_shard_row(row) for row in shards], "validation": list(_scores(shards))}


def _shard_row(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in ("shard", "version", "samples_seen", "log_time_ms")}
    return shown | {f"{field}_rows": rows for field, rows in row["rows"].items()}


def _scores(shards: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in shards:
        for label, scores in row["validation"].items():
            total, hours = scores["total"], scores["windows"][-_HOURS:]
            yield {"shard": row["shard"], "label": label, "period": "all", **total}
            for hour in hours:
                period = f"hour from {format_time(hour['start_ms'])}"
                metrics = {name: value for name, value in hour.items() if name != "start_ms"}
                yield {"shard": row["shard"], "label": label, "period": period, **metrics}
