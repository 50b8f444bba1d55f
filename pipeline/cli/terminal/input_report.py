"""How the importance of inputs is shown: as tables and JSON, and as a picture."""

from collections.abc import Set
from pathlib import Path
from typing import Any

from pipeline.cli.terminal.output_file import output_file
from pipeline.importance.fields.estimate import Estimate
from pipeline.importance.fields.report import FieldReport, InputReport

_MEASURES = (("permutation", "#0072B2", "o"), ("shapley", "#D55E00", "s"), ("live", "#6B6B6B", "|"))
"""Name, colour of Okabe and Ito, and marker."""
_INK, _GREY = "#222222", "#6B6B6B"


def result_of(report: FieldReport, chosen: Set[str]) -> dict[str, Any]:
    """The result of the command, for the chosen inputs, most important first by permutation."""
    inputs = [each for each in _ranked(report) if each.name in chosen]
    shown = [
        {"input": i.name, "table": i.table}
        | _interval("live", i.live)
        | _interval("permutation", i.permutation)
        | _interval("shapley", i.shapley)
        for i in inputs
    ]
    tables = [
        {"table": t.name, "fields": list(t.fields)}
        | _interval("live", t.live)
        | _interval("permutation", t.permutation)
        for t in report.tables
        if chosen & set(t.fields)
    ]
    known = {"samples": report.samples, "learned_samples": report.learned, "loss": report.loss, "inputs": shown}
    left_out = [_left_out(each) for each in inputs if each.footprint is not None]
    return known | ({"shared_tables": tables} if tables else {}) | ({"leaving_out": left_out} if left_out else {})


def draw(report: FieldReport, path: Path) -> None:
    """Draw the inputs with their confidence intervals into a PNG. Raises InputError if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ranked = _ranked(report)[::-1]
    figure = Figure(figsize=(10, 1.8 + 0.32 * len(ranked)), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for shift, (name, colour, marker) in zip((0.2, 0.0, -0.2), _MEASURES, strict=True):
        known = [(place, getattr(each, name)) for place, each in enumerate(ranked) if getattr(each, name) is not None]
        means, half = [e.mean for _, e in known], [e.high - e.mean for _, e in known]
        places = [place + shift for place, _ in known]
        axes.errorbar(means, places, xerr=half, fmt=marker, ms=5, lw=1.5, color=colour, label=name)
    axes.axvline(0, color=_GREY, lw=0.8)
    axes.set_yticks(range(len(ranked)), [each.name for each in ranked], color=_INK)
    axes.set_xlabel("rise of the loss without the input, with 95 % confidence intervals", color=_INK)
    axes.set_title(f"Importance of inputs, {report.samples:,} samples, loss {report.loss:.4f}", color=_INK)
    axes.legend(frameon=False, loc="lower right")
    with output_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _ranked(report: FieldReport) -> list[InputReport]:
    return sorted(report.inputs, key=lambda each: (-each.permutation.mean, each.name))


def _interval(name: str, estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {name: None, f"{name}_interval": None}
    return {name: estimate.mean, f"{name}_interval": [estimate.low, estimate.high]}


def _left_out(each: InputReport) -> dict[str, Any]:
    """What leaving a field out costs in loss, and what it frees."""
    found = each.footprint
    assert found is not None, each.name
    return {
        "field": each.name,
        "costs_loss": each.permutation.mean,
        "frees_rows": found.rows,
        "frees_trainer_bytes": found.row_bytes,
        "frees_serving_bytes": found.served_bytes,
        "frees_lookups_share": found.lookups,
        "rows_counted": "by samples" if found.estimated else "all",
    }
