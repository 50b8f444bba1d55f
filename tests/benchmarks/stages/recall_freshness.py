"""From a click to a changed answer of recall, coarse and fine ranker: `springtide demo --cascade`, longer.

The jobs run in one process (`springtide run all`), the replicas in two, over logs in SQLite. A probe appends a batch of
clicks and asks each stage over HTTP until it answers otherwise; the time includes join, training, commit, delta, and
for recall the embedding of all items.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.demo.cascade.run import CascadeScenario, run_cascade
from pipeline.demo.cascade.stages import Sizes
from pipeline.market.config import MarketConfig
from tests.benchmarks.harness.report import Figure

P99_MOST_S = 1.0


def measure(folder: Path, quick: bool) -> list[Figure]:
    items, rows, probes = (100, 5_000, 2) if quick else (2_000, 250_000, 100)
    market = MarketConfig(users=items, items=items, impressions_per_hour=rows, hours=2, click_rate=0.2, churn=0.0)
    sizes = Sizes(items // 10, items // 20, 5)
    found = run_cascade(folder, lambda line: None, CascadeScenario(1, market, sizes, 5, probes))["freshness_s"]
    return figures_of(found, items, None if quick else P99_MOST_S)


def figures_of(freshness_s: Mapping[str, Sequence[float]], items: int, most: float | None) -> list[Figure]:
    """The figure of each stage: the 99th percentile of its times (s) of a run with `items`, at most `most`."""
    figures = []
    for name, times_s in freshness_s.items():
        p50, p99 = np.percentile(times_s, [50, 99]).tolist()
        more = {"items": items, "probes": len(times_s), "clicks a probe": 256, "p50 s": p50}
        figures.append(Figure(f"freshness, p99 of a click to changed {name}", p99, "s", more, most=most))
    return figures
