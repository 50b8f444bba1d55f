"""Rows that learn one batch late (`train.pipeline_depth = 2`): what it costs in log loss, and what it takes a batch.

Log loss is that of progressive validation on the market, of the same samples at both depths. Rates are those of
`batch`, one depth after the other in the same process: late rows gain where a processor would wait otherwise.
"""

import threading
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import Market
from pipeline.process.clock import SystemClock
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.models.two_towers import samples_of
from tests.benchmarks.stages.batch import learn_twice
from tests.support.shop.shop import append_samples

_COLUMNS = ("user", "item", "category", "position", "price", "interests")
_DEPTHS = (1, 2)


def measure(folder: Path, quick: bool) -> list[Figure]:
    seeds, hours, per_hour = (1, 2, 8_000) if quick else (5, 10, 30_000)
    losses = np.array(
        [
            [_log_loss(folder / f"{seed} {depth}", seed, hours, per_hour, depth) for depth in _DEPTHS]
            for seed in range(1, seeds + 1)
        ]
    )
    above = 100 * (losses[:, 1] / losses[:, 0] - 1)
    sizes = {"seeds": seeds, "samples": hours * per_hour, "deviation over seeds": round(float(above.std()), 4)}
    rows = 50_000 if quick else 600_000
    taken = [learn_twice(folder / f"rate {depth}", 4 if quick else 26, rows, pipeline_depth=depth) for depth in _DEPTHS]
    figures = [Figure("pipeline depth 2, log loss above depth 1", float(above.mean()), "%", sizes)]
    for state in ("growing", "warm"):
        before, after = (each[state] for each in taken)
        name = f"pipeline depth 2, {state}, times depth 1"
        figures.append(Figure(name, after.rate / before.rate, "x", after.sizes))
    return figures


def _log_loss(root: Path, seed: int, hours: int, per_hour: int, depth: int) -> float:
    """Of progressive validation over the impressions of a market in order of time."""
    files = resources.files("pipeline.market") / "project"
    document = tomllib.loads((files / "springtide.toml").read_text(encoding="utf-8"))
    document["train"] = document.get("train", {}) | {"pipeline_depth": depth}
    root.mkdir(parents=True)
    (root / "model.py").write_text((files / "model.py").read_text(encoding="utf-8"), encoding="utf-8")
    project = Project(root, parse_config(document), SystemClock())
    log, market = open_log(project), Market(seed, MarketConfig(hours=hours, impressions_per_hour=per_hour))
    for hour in range(hours):
        append_samples(log, project, samples_of(market.events(hour), _COLUMNS), block_rows=8_192)
    trainer = TrainerShard(project, log, VersionStore(project), 0)
    try:
        trainer.train(log.end_offset(project.config.topics.samples, 0), threading.Event())
        return float(trainer.status()["validation"]["label"]["total"]["log_loss"])
    finally:
        trainer.close()
