"""Bytes of realtime deltas of whole projects, dense weights and headers included, against fp32.

The stream of 26 fields (`stream_project`), a market of two days, and the MIND impressions if they are on this machine:
each is trained in one pass, with and without dense weights under the price of a byte. fp32 is 9 bytes and the weights
of every row that a delta's interval changed, and all dense weights, for each delta. Losses are those of the manifests:
predicted, and measured on the first batch after each commit. A full follows the last version.
"""

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import pipeline.market
from pipeline.configuration.config import load_config, parse_config
from pipeline.configuration.project import Project
from pipeline.demo.publish_statistics import PublishStatistics
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import Market
from pipeline.market.produce import produce
from pipeline.process.clock import SystemClock
from pipeline.samples.run.in_process import SamplesJob
from pipeline.trainer.commit.full_on_command import publish_full
from pipeline.trainer.run.in_process import TrainJob
from pipeline.versions.deltas.delta_sizes import DeltaSizes
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.load.stream import append_samples, stream_project
from tests.real.test_mind import SOURCE, WINDOW_MS, clicks_of, prepare

LEAST_SMALLER, WITHIN, WARM = 25.0, 2.0, 3
KEPT = {"all_s": 1e9}
"""`[train.retention]` under which every version stays."""


@dataclass(frozen=True)
class Stream:
    """A project, whose state is in its folder: by the way of dense weights one is made and trained to its end."""

    name: str
    trained: Callable[[Path, str], Project]


def measure(folder: Path, quick: bool) -> list[Figure]:
    streams = [
        Stream("26 fields", lambda root, dense: _fields(root, dense, *((20_000, 6) if quick else (600_000, 26)))),
        Stream("market", lambda root, dense: _market(root, dense, 3 if quick else 48)),
    ]
    if SOURCE.exists() and not quick:
        streams.append(Stream("MIND", _mind))
    return [
        figure
        for stream in streams
        for dense in ("priced", "exact")
        for figure in _figures(stream, dense, folder / f"{stream.name.split()[0]}-{dense}")
    ]


def _fields(root: Path, dense: str, rows: int, fields: int) -> Project:
    train = {
        "commit_every_s": 86_400.0,
        "commit_every_log_s": "off",
        "commit_every_batches": fields // 6,
        "retention": KEPT,
    }
    project = stream_project(root, fields, train=train, publish={"dense": dense})
    with closing(open_log(project)) as log:
        append_samples(project, log, seed=1, rows=rows, per_second=1_000)
        _train(project, log)
    return project


def _market(root: Path, dense: str, hours: int) -> Project:
    shutil.copytree(Path(pipeline.market.__file__).parent / "project", root)
    project = _configured(root, dense, {"commit_every_s": 86_400.0, "commit_every_log_s": 900.0})
    market = Market(1, MarketConfig(hours=hours, impressions_per_hour=10_000))
    with closing(open_log(project)) as log, closing(SamplesJob(project, log)) as join:
        for hour in range(hours):
            produce(log, project, market, [hour])
            join.catch_up()
        _train(project, log)
    return project


def _mind(root: Path, dense: str) -> Project:
    root.mkdir()
    impressions = pd.read_csv(SOURCE)
    impressions["list_size"] = impressions.groupby("impression_id")["item"].transform("size")
    delays_ms = np.random.default_rng(21).integers(0, WINDOW_MS, int(impressions["click"].sum()))
    folder = prepare(root, impressions, clicks_of(impressions, delays_ms, seed=22))
    project = _configured(folder, dense, {"commit_every_s": 86_400.0, "commit_every_log_s": 600.0})
    with closing(open_log(project)) as log:
        with closing(SamplesJob(project, log)) as join:
            join.catch_up()
        _train(project, log)
    return project


def _configured(root: Path, dense: str, train: dict[str, Any]) -> Project:
    document = load_config(root / "springtide.toml").model_dump(exclude_unset=True)
    document["publish"] = document.get("publish", {}) | {"dense": dense}
    document["train"] = document.get("train", {}) | train | {"retention": KEPT}
    return Project(root, parse_config(document), SystemClock())


def _train(project: Project, log: Any) -> None:
    with closing(TrainJob(project, log)) as job:
        while job.round():
            pass


def _figures(stream: Stream, dense: str, folder: Path) -> list[Figure]:
    project = stream.trained(folder, dense)
    statistics = PublishStatistics(project, 0)
    statistics.update()
    realtime, full = replace(statistics.levels["realtime"]), statistics.levels["full"]
    with closing(open_log(project)) as log, closing(VersionStore(project)) as store:
        ids = [summary.id for summary in store.lineage(0)][WARM:]
        sizes = [DeltaSizes.of(store.delta(id)) for id in ids]
        qualities = [store.quality(id) for id in ids]
        publish_full(project, log, store, 0)
    statistics.update()
    statistics.close()
    measured = [each.measured_loss for each in qualities if each.measured_loss is not None]
    predicted = float(np.mean([each.predicted_loss for each in qualities]))
    name, parts = f"published, {stream.name}, dense {dense}", ("weights", "keys", "dense", "header")
    of_parts = {part: round(float(np.mean([getattr(each, part) for each in sizes]))) for part in parts}
    loss = {"measured %": round(100 * float(np.mean(measured)), 4), "predicted %": round(100 * predicted, 4)}
    priced = dense == "priced"
    return [
        Figure(f"{name}: smaller than fp32", realtime.fp32_bytes / realtime.sent_bytes, "x",
               {"deltas": realtime.deltas} | of_parts, least=LEAST_SMALLER if priced else None),
        Figure(f"{name}: predicted over measured loss", predicted / float(np.mean(measured)), "x", loss,
               most=WITHIN if priced else None),
        Figure(f"{name}: full snapshots over fp32", 100 * full.sent_bytes / full.fp32_bytes, "%",
               {"fulls": full.deltas}),
    ]  # fmt: skip
