"""Runs the cascade: the market's history is learned, two replicas serve three stages, and clicks change each."""

import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.configuration.project import Project
from pipeline.demo.cascade.probes import STAGES, Probes
from pipeline.demo.cascade.processes import replica, run, started
from pipeline.demo.cascade.stages import Columns, Sizes, Stages
from pipeline.demo.folder import CASCADE, fresh_folder
from pipeline.demo.run import PrintLine
from pipeline.ingest.event_writer import append_heartbeat
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import HOUR_MS, Market, MarketHour
from pipeline.market.produce import produce
from pipeline.process.clock import Clock, SystemClock

_CLOSED_MS = 4 * HOUR_MS
"""From the end of history to now; half of it is longer than window and horizon of the project."""


def some_hours() -> MarketConfig:
    """A market with more items than a ranker scores for one request."""
    return MarketConfig(users=2_000, items=2_000, impressions_per_hour=30_000, hours=7, click_rate=0.12, taste=1.0)


@dataclass(frozen=True)
class CascadeScenario:
    """One run.

    Attributes:
        seed: seed of the market.
        market: all hours but the last are history, the last one has the impressions of the probes.
        sizes: how many items each stage passes on.
        users: users for whom items are ranked.
        probes: how many times clicks are sent and the stages asked; fewer if the last hour has too few clicks.
        logs: settings of `[logs]` that are added, such as those of a Kafka.
    """

    seed: int = 1
    market: MarketConfig = field(default_factory=some_hours)
    sizes: Sizes = field(default_factory=Sizes)
    users: int = 50
    probes: int = 10
    logs: str = ""


def run_cascade(
    out: Path, print_line: PrintLine, scenario: CascadeScenario | None = None, clock: Clock | None = None
) -> dict[str, Any]:
    """Learn a market's history, rank items for users in three stages, and measure how fresh each stage is.

    Args:
        out: receives the folder `cascade` with the project, the logs of its processes and `cascade.json`.
        print_line: called with each line of progress and of the summary.
        scenario: by default a few hours of 2,000 items.
        clock: measures durations; history ends four hours before now.

    Returns:
        the summary, JSON-able.

    Raises:
        InputError: `out/cascade` exists and was not created by a demo, or a process failed.
    """
    scenario, clock = scenario or CascadeScenario(), clock or SystemClock()
    folder = fresh_folder(out.resolve() / CASCADE)
    history = scenario.market.hours - 1
    ended_ms = clock.now_ms() - _CLOSED_MS
    market = Market(scenario.seed, replace(scenario.market, start_at_ms=ended_ms - history * HOUR_MS))
    items = market.items(history).to_pylist()
    project = _make_project(folder / "project", scenario.logs, items, clock)
    if project.config.logs.engine == "kafka":
        run(project.root, "topics", "create")
    with closing(open_log(project)) as log:
        print_line(f"{history} hours of a market with {len(items):,} items are learned")
        produce(log, project, market, range(history))
        append_heartbeat(project, log, ended_ms + _CLOSED_MS // 2)  # closes all windows: nothing else changes later
        run(project.root, "run", "all", "--until-end")
        with (
            replica(project.root) as whole,
            replica(project.root, "--part", "coarse") as coarse,
            started(project.root, "run", "all"),
            closing(Stages(whole, coarse, items)) as stages,
        ):
            stages.wait_until_ready(market.users(np.zeros(1, np.int64)).to_pylist()[0], clock)
            quality = _quality(stages, market, scenario, print_line)
            probes = Probes(project, log, stages, clicked_impressions(market.events(history)))
            freshness = _freshness(probes, min(scenario.probes, probes.most - 1), print_line)
    summary = {"project": str(project.root), "stages": quality, "freshness_s": freshness}
    (folder / "cascade.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def clicked_impressions(hour: MarketHour) -> pa.RecordBatch:
    """The genuine impressions of an hour that are clicked, each once."""
    ids = hour.impressions.column("id").to_numpy()
    rows = np.sort(np.unique(ids, return_index=True)[1])
    return hour.impressions.take(pa.array(rows[np.isin(ids[rows], hour.truth.id[hour.truth.clicked])]))


def _make_project(root: Path, logs: str, items: list[Columns], clock: Clock) -> Project:
    root.mkdir()
    files = resources.files("pipeline.demo.cascade") / "project"
    settings, model = ((files / name).read_text(encoding="utf-8") for name in ("springtide.toml", "model.py"))
    (root / "springtide.toml").write_text(settings.replace("[logs]\n", f"[logs]\n{logs}", 1), encoding="utf-8")
    (root / "model.py").write_text(model, encoding="utf-8")
    (root / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return Project.open(root, clock)


def _quality(
    stages: Stages, market: Market, scenario: CascadeScenario, print_line: PrintLine
) -> dict[str, dict[str, float]]:
    """By stage, how many items it passes on, and their mean true click probability at the first position."""
    hour, sizes = market.config.hours - 1, scenario.sizes
    places = {name: place for place, name in enumerate(market.items(hour).column("item").to_pylist())}
    users = np.arange(min(scenario.users, market.config.users))
    true = market.probabilities(hour, users)
    ranked = [stages.rank(user, sizes) for user in market.users(users).to_pylist()]

    def mean(chosen: list[list[str]]) -> dict[str, float]:
        found = [row[[places[name] for name in names]].mean() for row, names in zip(true, chosen, strict=True)]
        return {"items": len(chosen[0]), "click_probability": float(np.mean(found))}

    best = np.sort(true, axis=1)[:, -sizes.shown :]
    by_stage = {
        "all": {"items": len(places), "click_probability": float(true.mean())},
        "recall": mean([each.recalled for each in ranked]),
        "coarse": mean([each.kept for each in ranked]),
        "fine": mean([each.shown for each in ranked]),
        "best possible": {"items": sizes.shown, "click_probability": float(best.mean())},
    }
    for name, each in by_stage.items():
        print_line(f"{name}: {each['items']:,} items, {each['click_probability']:.1%} are clicked if shown")
    return by_stage


def _freshness(probes: Probes, count: int, print_line: PrintLine) -> dict[str, list[float]]:
    """By stage, the seconds of each probe; one before them warms the processes up."""
    probes.probe()
    times = [probes.probe() for _ in range(count)]
    by_stage = {name: [round(found[name], 4) for found in times] for name in STAGES}
    for name, times_s in by_stage.items():
        print_line(f"click to changed {name}: {median(times_s):.2f} s, at most {max(times_s):.2f} s")
    return by_stage
