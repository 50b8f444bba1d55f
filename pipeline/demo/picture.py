"""The demo's picture: NE by hour, bytes by level, rows by precision. Draws to a file, without a display."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.demo.report import PRECISION_NAMES, DemoResult

# The colours of Okabe and Ito, distinguishable with any colour vision; greys for references.
_BLUE, _ORANGE, _VERMILION, _PURPLE = "#0072B2", "#E69F00", "#D55E00", "#CC79A7"
_INK, _GREY, _PALE = "#222222", "#6B6B6B", "#D9D9D9"
_BIN_HOURS = 3
_PRECISION_COLOURS = dict(zip(PRECISION_NAMES, (_PALE, "#9ECAE1", "#4292C6", "#08519C", "#08306B"), strict=True))


@dataclass(frozen=True)
class _Curve:
    label: str
    colour: str
    width: float
    style: str = "-"


_CURVES = {
    "once": _Curve("trained once", _VERMILION, 1.8),
    "daily": _Curve("refreshed daily", _ORANGE, 1.8),
    "without rollback": _Curve("live, no rollback", _PURPLE, 2.2, "--"),
    "live": _Curve("live", _BLUE, 3.0),
    "truth": _Curve("exact probabilities", _GREY, 2.0, ":"),
}


def draw(result: DemoResult, path: Path) -> None:
    """Draw the result of a run into a PNG of 1600 × 1100 pixels."""
    figure = Figure(figsize=(16, 11), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    _draw_text(figure, result)
    _draw_ne(figure.add_axes((0.06, 0.435, 0.775, 0.405)), result)
    _draw_bytes(figure.add_axes((0.135, 0.09, 0.30, 0.225)), result)
    _draw_precisions(figure.add_axes((0.535, 0.09, 0.30, 0.225)), result)
    figure.savefig(path, pil_kwargs={"optimize": True})


def _draw_text(figure: Figure, result: DemoResult) -> None:
    market = result.scenario.market
    figure.text(
        0.06, 0.945, "A model kept fresh, poisoned by bots, and rolled back", size=25, weight="bold", color=_INK
    )
    figure.text(
        0.06,
        0.912,
        f"Simulated marketplace: {market.impressions_per_hour:,} impressions per hour for {market.hours} hours, "
        f"through the complete pipeline; {market.churn:.0%} of all items are replaced every hour.",
        size=14,
        color=_GREY,
    )
    figure.text(
        0.06,
        0.018,
        "Simulated data, one run of springtide demo. Each model predicts an hour's genuine impressions before any "
        "model is trained on them. NE is computed against their exact click\nprobabilities, which are known only in a "
        "simulation; predicting these exactly gives the lowest possible NE.",
        size=10.5,
        color=_GREY,
        linespacing=1.4,
    )


def _draw_ne(axes: Axes, result: DemoResult) -> None:
    """NE by hour after the warm-up."""
    scenario = result.scenario
    _title(axes, "Normalized entropy (NE) by hour: log loss relative to always predicting the mean; lower is better")
    begin, end = scenario.warm_up_hours, scenario.market.hours
    shown = {name: result.scores[name].ne for name in _CURVES if name in result.scores}
    for name, by_hour in shown.items():
        curve = _CURVES[name]
        hours = [hour for hour in sorted(by_hour) if hour >= begin]
        # The curve without rollback leaves the live curve at the rollback.
        if name == "without rollback":
            hours = [scenario.noticed_hour - 1, *hours]
            by_hour = {**by_hour, scenario.noticed_hour - 1: result.scores["live"].ne[scenario.noticed_hour - 1]}
        values = [by_hour[hour] for hour in hours]
        axes.plot(np.array(hours) + 0.5, values, color=curve.colour, lw=curve.width, ls=curve.style, zorder=3)
    axes.set_xlim(begin, end)
    axes.margins(y=0.1)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.06 * (high - low))
    _draw_days(axes, begin, end)
    _draw_events(axes, result)
    _label_curves(axes, {name: by_hour[end - 1] for name, by_hour in shown.items()}, end)
    axes.grid(axis="y", color="#EBEBEB", zorder=0)
    axes.axhline(1, color="#A0A0A0", lw=1.2, zorder=1)
    _style(axes)


def _draw_events(axes: Axes, result: DemoResult) -> None:
    """The contamination as a band, the rollback as a line."""
    scenario, rollback = result.scenario, result.rollback
    (first, last), noticed, top = scenario.bots, scenario.noticed_hour, axes.get_ylim()[1]
    axes.axvspan(first, last, color=_VERMILION, alpha=0.13, lw=0, zorder=1)
    axes.text(first - 0.3, top, "a bot farm clicks on\nunappealing items", size=12, color=_INK, ha="right", va="top")
    axes.axvline(noticed, color=_INK, lw=1.6, zorder=2)
    seconds = rollback.plan_s + rollback.act_s + rollback.serve_s
    equals = "equals" if rollback.equal else "DIFFERS FROM"
    text = f"rollback to {first % 24:02d}:00 in {seconds:.1f} s; the served view\n{equals} that version byte for byte"
    axes.text(noticed + 0.3, top, text, size=12, color=_INK, va="top")
    if scenario.warm_up_hours + scenario.refresh_hours <= first:
        text = "trained once and refreshed daily:\nidentical until midnight"
        axes.text(scenario.warm_up_hours + 0.4, top, text, size=12, color=_INK, va="top")


def _label_curves(axes: Axes, last_values: Mapping[str, float], end: int) -> None:
    """Labels at the right ends of the curves, moved apart so that they do not overlap."""
    low, high = axes.get_ylim()
    gap, y = 0.052 * (high - low), -np.inf
    for name in sorted(last_values, key=lambda name: last_values[name]):
        y = max(y + gap, last_values[name])
        curve = _CURVES[name]
        weight = "bold" if name == "live" else "normal"
        axes.text(end + 0.4, y, curve.label, size=13, color=curve.colour, va="center", weight=weight, clip_on=False)


def _draw_days(axes: Axes, begin: int, end: int) -> None:
    ticks = list(range(begin, end + 1, 6 if end - begin > 12 else 1))
    axes.set_xticks(ticks, [_hour_label(hour, begin) for hour in ticks])
    for midnight in range((begin // 24 + 1) * 24, end, 24):
        axes.axvline(midnight, color=_PALE, lw=1, zorder=1)


def _hour_label(hour: int, begin: int) -> str:
    clock = f"{hour % 24:02d}:00"
    return f"{clock}\nday {hour // 24 + 1}" if hour % 24 == 0 or hour == begin else clock


def _draw_bytes(axes: Axes, result: DemoResult) -> None:
    """Bytes of a snapshot of the last version against what serving it loses, by the price of a byte."""
    _title(axes, "Bytes of a full snapshot, by the loss it costs", left=-0.25)
    points = [point for point in result.prices.points if point.divergence and point.size_bytes]
    losses = [100 * (point.divergence or 0) for point in points]
    sizes = [point.size_bytes / 1e3 for point in points]
    fp32 = result.snapshot_fp32_bytes / 1e3
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(losses, sizes, "o-", color=_BLUE, lw=3.0, ms=6, zorder=3)
    axes.axhline(fp32, color=_GREY, lw=2.0, ls=":", zorder=2)
    axes.text(max(losses), 1.06 * fp32, f"fp32, {fp32:,.0f} kB", size=11.5, color=_GREY, ha="right", va="bottom")
    for point, loss, size in zip(points, losses, sizes, strict=True):
        if point.factor == 1:
            axes.plot([loss], [size], "o", color=_VERMILION, ms=10, zorder=4)
            text = f"chosen: {fp32 / size:.1f} × smaller\nat +{loss:.3f} % log loss"
            axes.annotate(text, (loss, size), (10, 6), textcoords="offset points", size=11.5, color=_VERMILION)
    axes.set_ylim(0.7 * min(sizes), 1.6 * fp32)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} kB")
    axes.minorticks_off()
    axes.grid(axis="y", color="#EBEBEB", zorder=0)
    realtime = result.published.levels["realtime"]
    text = f"{realtime.deltas} realtime deltas: {realtime.sent_bytes / 1e6:.2f} MB,\n"
    text += f"{realtime.fp32_bytes / realtime.sent_bytes:.1f} × smaller than\nchanged rows in fp32"
    axes.text(0.03, 0.06, text, size=11.5, color=_INK, transform=axes.transAxes)
    _style(axes)


def _draw_precisions(axes: Axes, result: DemoResult) -> None:
    """Shares of the changed rows by the precision they were sent at, one stacked column per few hours."""
    _title(axes, "Changed rows by precision sent")
    hours = result.scenario.market.hours
    width = _BIN_HOURS if hours > 24 else 1
    by_hour = result.published.precisions
    bins = [sum((by_hour.get(h, Counter()) for h in range(b, b + width)), Counter()) for b in range(0, hours, width)]
    below, centres = np.zeros(len(bins)), {}
    for name in PRECISION_NAMES[::-1]:
        share = np.array([counts[name] / max(counts.total(), 1) for counts in bins])
        colour = _PRECISION_COLOURS[name]
        axes.bar(np.arange(len(bins)) * width, share, 0.92 * width, below, align="edge", color=colour, lw=0)
        below = below + share
        centres[name] = float(below[-1] - share[-1] / 2)
    _label_precisions(axes, centres, result)
    axes.set_xlim(0, hours)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    ticks = list(range(0, hours, 24 if hours > 24 else 1))
    axes.set_xticks(ticks, [f"day {hour // 24 + 1}" if hours > 24 else f"{hour:02d}:00" for hour in ticks], ha="left")
    _style(axes)


def _label_precisions(axes: Axes, centres: Mapping[str, float], result: DemoResult) -> None:
    """The legend, with each precision's share of the whole run; precisions without rows are omitted."""
    counts, y = result.precisions(), -1.0
    for name, centre in centres.items():
        if not counts[name]:
            continue
        y = max(y + 0.12, centre)
        share, right = counts[name] / counts.total(), result.scenario.market.hours
        label = "withheld" if name == "withheld" else f"{name} bit"
        text = f"{label}, {share:.0%}" if share >= 0.005 else f"{label}, under 1%"
        axes.text(1.015 * right, y, "■", size=12, color=_PRECISION_COLOURS[name], va="center")
        axes.text(1.05 * right, y, text, size=12, color=_INK, va="center")


def _title(axes: Axes, text: str, left: float = 0.0) -> None:
    axes.text(left, 1.045, text, size=14, weight="bold", color=_INK, transform=axes.transAxes)


def _style(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_PALE)
    axes.tick_params(length=0, labelsize=12, colors=_GREY)
