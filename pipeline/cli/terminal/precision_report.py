"""How the precision of rows is shown: as tables and JSON, and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.terminal.output_file import output_file
from pipeline.configuration.project import Project
from pipeline.versions.state import Commit

if TYPE_CHECKING:
    from pipeline.trainer.run.precision import PricePoint, PriceSearch

_INK, _GREY, _BLUE, _ORANGE = "#222222", "#6B6B6B", "#0072B2", "#D55E00"
_SHOWN = (1 / 16, 1.0, 16.0)
"""Prices whose calibration the picture shows."""


def result_of_tables(project: Project, commits: Sequence[Commit], chosen: str | None) -> dict[str, Any]:
    """The precision of all tables, or of one, over the current versions of all shards. Raises InputError."""
    from pipeline.publish.precision.tables import of_all_shards
    from pipeline.trainer.run.precision import precision_of_tables, price_at

    of_shards, shards = [], []
    for commit in commits:
        at = price_at(project, commit)
        of_shards.append(precision_of_tables(project, commit, at))
        shards.append({"version": str(commit.id), "price_per_byte": at.per_byte, "dense_loss": at.dense_loss,
                       "predicted_loss": commit.quality.predicted_loss})  # fmt: skip
    rows = []
    for name in of_shards[0]:
        if chosen not in (None, name):
            continue
        table = of_all_shards([shard[name] for shard in of_shards if name in shard])
        rows.append(
            {"table": name}
            | _by_bits(table.rows)
            | {
                "withheld_rows": table.withheld,
                "bytes_per_row_sent": table.bytes_per_row,
                "serving_loss": table.serving_loss,
                "next_byte_gains": table.next_byte,
            }
        )
    return {"allowed_loss": project.config.publish.loss, "shards": shards, "tables": rows}


def result_of_search(project: Project, search: "PriceSearch") -> dict[str, Any]:
    """The points of a search and the calibration of each."""
    points: list[dict[str, Any]] = [
        {"price": point.factor, **_by_bits(point.rows)}
        | {
            "snapshot_bytes": point.size_bytes,
            "bytes_per_row": point.rows_bytes / max(sum(point.rows.values()), 1),
            "loss_rise": point.loss_rise,
            "divergence": point.divergence,
            "ks_distance": point.ks_distance,
        }
        for point in search.points
    ]
    known = {"samples": search.samples, "learned_samples": search.learned, "loss": search.loss, "label": search.label}
    deciles = [
        {"price": point.factor} | {f"decile_{i}": ratio for i, ratio in enumerate(point.calibration, start=1)}
        for point in search.points
    ]
    return known | {"prices": points} | ({"calibration": deciles} if any(len(each) > 1 for each in deciles) else {})


def draw(search: "PriceSearch", path: Path) -> None:
    """Draw bytes against loss, and the calibration of some prices, into a PNG. Raises InputError if it cannot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    curve, deciles = figure.subplots(1, 2)
    _draw_curve(curve, search)
    _draw_calibration(deciles, search.points)
    with output_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_curve(axes: Any, search: "PriceSearch") -> None:
    losses = [point.loss_rise if point.divergence is None else point.divergence for point in search.points]
    sizes = [point.rows_bytes / max(sum(point.rows.values()), 1) for point in search.points]
    axes.plot(sizes, losses, "o-", ms=4, lw=1.5, color=_BLUE)
    for size, loss, point in zip(sizes, losses, search.points, strict=True):
        text = f" {_times(point.factor)}"
        axes.annotate(text, (size, loss), color=_ORANGE if point.factor == 1 else _GREY, fontsize=8)
    if all(loss > 0 for loss in losses):
        axes.set_yscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel("bytes per row of a snapshot", color=_INK)
    axes.set_ylabel("loss, relative to the trainer's", color=_INK)
    axes.set_title(f"Prices of a byte, {search.samples:,} samples", color=_INK)


def _draw_calibration(axes: Any, points: Sequence["PricePoint"]) -> None:
    axes.axhline(1, color=_GREY, lw=0.8)
    for point in points:
        if point.factor in _SHOWN and point.calibration:
            places = range(1, len(point.calibration) + 1)
            label = f"price {_times(point.factor)}, KS {point.ks_distance:.4f}"
            axes.plot(places, point.calibration, "o-", ms=3, lw=1.2, label=label)
            axes.legend(frameon=False, loc="upper left")
    axes.margins(y=0.3)
    axes.set_xlabel("decile of the trainer's score", color=_INK)
    axes.set_ylabel("mean score over the trainer's", color=_INK)
    axes.set_title("Calibration", color=_INK)


def _times(factor: float) -> str:
    return f"× {factor:g}" if factor >= 1 else f"× 1/{1 / factor:g}"


def _by_bits(rows: dict[int, int]) -> dict[str, int]:
    return {f"rows_{bits}_bits": count for bits, count in rows.items()}
