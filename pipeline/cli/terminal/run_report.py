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


def matured_scores(matured: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """By period, the scores of labels that can no longer change, and of the same labels as they were."""
    if not matured["total"]["samples"]:
        return
    yield "matured", matured["total"]
    for scores in matured["by_age"]:
        yield f"as of {scores['age']}", {name: value for name, value in scores.items() if name != "age"}


def _shard_row(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in ("shard", "version", "samples_seen", "log_time_ms")}
    return shown | {f"{field}_rows": rows for field, rows in row["rows"].items()}


def _scores(shards: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in shards:
        for label, scores in row["validation"].items():
            total, hours = scores["total"], scores["windows"][-_HOURS:]
            yield {"shard": row["shard"], "label": label, "period": "all", **total}
            if "matured" in scores:  # a version of an earlier release has none
                for period, matured in matured_scores(scores["matured"]):
                    yield {"shard": row["shard"], "label": label, "period": period, **matured}
            for hour in hours:
                period = f"hour from {format_time(hour['start_ms'])}"
                metrics = {name: value for name, value in hour.items() if name != "start_ms"}
                yield {"shard": row["shard"], "label": label, "period": period, **metrics}
