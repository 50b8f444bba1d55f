"""The demo's picture: NE by hour, bytes by level, rows by precision. Draws to a file, never to a screen."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.demo.report import STEPS, Run

# Okabe and Ito's colours, which everybody can tell apart; greys for what is only there to compare with.
_BLUE, _ORANGE, _VERMILION, _PURPLE = "#0072B2", "#E69F00", "#D55E00", "#CC79A7"
_INK, _GREY, _PALE = "#222222", "#6B6B6B", "#D9D9D9"
_BIN_HOURS = 3
_MIX_COLOURS = dict(zip(STEPS, (_PALE, "#9ECAE1", "#4292C6", "#08519C", "#08306B"), strict=True))


@dataclass(frozen=True)
class _Line:
    label: str
    colour: str
    width: float
    style: str = "-"


_LINES = {
    "once": _Line("trained once", _VERMILION, 1.8),
    "daily": _Line("refreshed daily", _ORANGE, 1.8),
    "without rollback": _Line("live, not rolled back", _PURPLE, 2.2, "--"),
    "live": _Line("live", _BLUE, 3.0),
    "truth": _Line("the truth itself", _GREY, 2.0, ":"),
}


def draw(run: Run, path: Path) -> None:
    """Draw a run into a PNG of 1600 × 1100 pixels."""
    figure = Figure(figsize=(16, 11), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    _head(figure, run)
    _quality(figure.add_axes((0.06, 0.435, 0.775, 0.405)), run)
    _bytes(figure.add_axes((0.135, 0.09, 0.30, 0.225)), run)
    _precisions(figure.add_axes((0.535, 0.09, 0.30, 0.225)), run)
    figure.savefig(path, pil_kwargs={"optimize": True})


def _head(figure: Figure, run: Run) -> None:
    market = run.story.market
    figure.text(0.06, 0.945, "A model kept fresh, poisoned, and taken back", size=25, weight="bold", color=_INK)
    figure.text(
        0.06,
        0.912,
        f"Simulated marketplace: {market.impressions_per_hour:,} impressions an hour for {market.hours} hours, through "
        f"the real chain; {market.churn:.0%} of all items are replaced every hour.",
        size=14,
        color=_GREY,
    )
    figure.text(
        0.06,
        0.018,
        "Simulated data, one run of springtide demo. Each model predicts an hour's genuine impressions before any has "
        "learned from them; NE is taken against their true click\nprobabilities, which only a simulation knows.",
        size=10.5,
        color=_GREY,
        linespacing=1.4,
    )


def _quality(axes: Axes, run: Run) -> None:
    """NE by hour from the end of the warm-up on."""
    story = run.story
    _title(axes, "Normalized entropy of predictions, by hour (lower is better; 1 is always predicting the mean)")
    begin, end = story.warm_up_hours, story.market.hours
    shown = {name: run.curves[name].ne for name in _LINES if name in run.curves}
    for name, by_hour in shown.items():
        line = _LINES[name]
        hours = [hour for hour in sorted(by_hour) if hour >= begin]
        # What is not rolled back leaves the live line where the operator acts.
        if name == "without rollback":
            hours = [story.noticed_hour - 1, *hours]
            by_hour = {**by_hour, story.noticed_hour - 1: run.curves["live"].ne[story.noticed_hour - 1]}
        marks = [by_hour[hour] for hour in hours]
        axes.plot(np.array(hours) + 0.5, marks, color=line.colour, lw=line.width, ls=line.style, zorder=3)
    axes.set_xlim(begin, end)
    axes.margins(y=0.1)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.06 * (high - low))
    _days(axes, begin, end)
    _events(axes, run)
    _label_ends(axes, {name: by_hour[end - 1] for name, by_hour in shown.items()}, end)
    axes.grid(axis="y", color="#EBEBEB", zorder=0)
    axes.axhline(1, color="#A0A0A0", lw=1.2, zorder=1)
    _bare(axes)


def _events(axes: Axes, run: Run) -> None:
    """The contamination as a band, the rollback as a line."""
    (first, last), noticed = run.story.bots, run.story.noticed_hour
    top, back = axes.get_ylim()[1], run.incident
    axes.axvspan(first, last, color=_VERMILION, alpha=0.13, lw=0, zorder=1)
    axes.text(first - 0.3, top, "a bot farm clicks on\nwhat nobody likes", size=12, color=_INK, ha="right", va="top")
    axes.axvline(noticed, color=_INK, lw=1.6, zorder=2)
    seconds = back.plan_s + back.act_s + back.serve_s
    equal = "equals" if back.equal else "DIFFERS FROM"
    said = f"rollback to {first % 24:02d}:00 in {seconds:.1f} s, what is served\n{equal} that version byte for byte"
    axes.text(noticed + 0.3, top, said, size=12, color=_INK, va="top")
    if run.story.warm_up_hours + run.story.refresh_hours <= first:
        same = "trained once, refreshed daily:\nthe same until midnight"
        axes.text(run.story.warm_up_hours + 0.4, top, same, size=12, color=_INK, va="top")


def _label_ends(axes: Axes, ends: Mapping[str, float], end: int) -> None:
    """Names at the lines' right ends, moved apart where they would touch."""
    low, high = axes.get_ylim()
    gap, place = 0.052 * (high - low), -np.inf
    for name in sorted(ends, key=lambda name: ends[name]):
        place = max(place + gap, ends[name])
        line = _LINES[name]
        weight = "bold" if name == "live" else "normal"
        axes.text(end + 0.4, place, line.label, size=13, color=line.colour, va="center", weight=weight, clip_on=False)


def _days(axes: Axes, begin: int, end: int) -> None:
    ticks = list(range(begin, end + 1, 6 if end - begin > 12 else 1))
    axes.set_xticks(ticks, [_hour_label(hour, begin) for hour in ticks])
    for midnight in range((begin // 24 + 1) * 24, end, 24):
        axes.axvline(midnight, color=_PALE, lw=1, zorder=1)


def _hour_label(hour: int, begin: int) -> str:
    clock = f"{hour % 24:02d}:00"
    return f"{clock}\nday {hour // 24 + 1}" if hour % 24 == 0 or hour == begin else clock


def _bytes(axes: Axes, run: Run) -> None:
    """Two bars a level: what was sent, and the same rows in fp32."""
    _title(axes, f"Bytes published in {run.story.market.hours} hours, beside every changed row in fp32", left=-0.25)
    levels = run.traffic.levels
    names = list(levels)
    places = np.arange(len(names))[::-1]
    sent = np.array([levels[name].sent_bytes for name in names]) / 1e6
    whole = np.array([levels[name].whole_bytes for name in names]) / 1e6
    axes.barh(places + 0.19, sent, 0.36, color=_BLUE)
    axes.barh(places - 0.19, whole, 0.36, color=_PALE)
    room = 0.015 * max(whole.max(), sent.max())
    for place, one, other in zip(places, sent, whole, strict=True):
        less = f"{other / one:.1f} × less" if one else ""
        axes.text(one + room, place + 0.19, f"{one:.1f} MB, {less}", size=11.5, color=_BLUE, va="center")
        axes.text(other + room, place - 0.19, f"{other:.1f} MB", size=11.5, color=_GREY, va="center")
    axes.set_yticks(places, [f"{name}\n{levels[name].deltas} deltas" for name in names])
    axes.set_xlim(0, 1.18 * max(whole.max(), sent.max()))
    axes.set_xticks([])
    _bare(axes)
    axes.spines["bottom"].set_visible(False)


def _precisions(axes: Axes, run: Run) -> None:
    """Shares of changed rows by what became of them, stacked, a column for every few hours."""
    _title(axes, "Changed rows by precision sent")
    hours = run.story.market.hours
    width = _BIN_HOURS if hours > 24 else 1
    bins = [
        sum((run.traffic.mix.get(h, Counter()) for h in range(b, b + width)), Counter()) for b in range(0, hours, width)
    ]
    below, centres = np.zeros(len(bins)), {}
    for step in STEPS[::-1]:
        share = np.array([mix[step] / max(mix.total(), 1) for mix in bins])
        axes.bar(np.arange(len(bins)) * width, share, 0.92 * width, below, align="edge", color=_MIX_COLOURS[step], lw=0)
        below = below + share
        centres[step] = float(below[-1] - share[-1] / 2)
    _name_steps(axes, centres, run)
    axes.set_xlim(0, hours)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    ticks = list(range(0, hours, 24 if hours > 24 else 1))
    axes.set_xticks(ticks, [f"day {hour // 24 + 1}" if hours > 24 else f"{hour:02d}:00" for hour in ticks], ha="left")
    _bare(axes)


def _name_steps(axes: Axes, centres: Mapping[str, float], run: Run) -> None:
    """What the colours are, and each one's share of the whole run; what never came is left out."""
    mix, place = run.mix(), -1.0
    for step, centre in centres.items():
        if not mix[step]:
            continue
        place = max(place + 0.12, centre)
        share, right = mix[step] / mix.total(), run.story.market.hours
        name = "withheld" if step == "withheld" else f"{step} bit"
        text = f"{name}, {share:.0%}" if share >= 0.005 else f"{name}, under 1%"
        axes.text(1.015 * right, place, "■", size=12, color=_MIX_COLOURS[step], va="center")
        axes.text(1.05 * right, place, text, size=12, color=_INK, va="center")


def _title(axes: Axes, text: str, left: float = 0.0) -> None:
    axes.text(left, 1.045, text, size=14, weight="bold", color=_INK, transform=axes.transAxes)


def _bare(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_PALE)
    axes.tick_params(length=0, labelsize=12, colors=_GREY)
