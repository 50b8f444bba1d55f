"""Trainer: samples per second from a samples log on disk into a store grown from empty.

26 fields × dim 16, MLP 256-128, batch 2,048, deterministic, importance, convergence and progressive validation on,
a commit with its realtime delta every second. The same again with the 26 fields sharing 5 tables.
"""

import threading
from pathlib import Path
from typing import Any

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks import peers
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.harness.stopwatch import Stopwatch, peak_mib
from tests.benchmarks.load.stream import append_samples, stream_project
from tests.benchmarks.native import tracking

_WARM_UP_RECORDS = 4
_TABLES = 5


def measure(folder: Path, quick: bool) -> list[Figure]:
    fields = 4 if quick else 26
    rate, sizes = _learn(stream_project(folder, fields), quick)
    shared_rate, shared_sizes = _learn(stream_project(folder / "shared", fields, tables=2 if quick else _TABLES), quick)
    compared = [] if quick else tracking.measure(folder, rate) + _compare_trainers(rate)
    return [
        Figure("trainer", rate, "samples/s", sizes, least_ratio=0.7),
        Figure("trainer, fields sharing 5 tables", shared_rate, "samples/s", shared_sizes),
        # Both look up as many rows for a sample: one in each field.
        Figure("trainer, shared tables, times own ones", shared_rate / rate, "x", shared_sizes, least=0.9),
        *compared,
    ]


def _learn(project: Project, quick: bool) -> tuple[float, dict[str, Any]]:
    """Samples per second, and the sizes of the measurement."""
    log = open_log(project)
    append_samples(project, log, seed=1, rows=50_000 if quick else 600_000, per_second=50_000)
    trainer, stop = TrainerShard(project, log, VersionStore(project), 0), threading.Event()
    try:
        # Building and compiling the network is part of the start, not of the rate.
        trainer.train(_WARM_UP_RECORDS, stop)
        before, commits_before = trainer.samples, trainer.commits
        with Stopwatch() as watch:
            trainer.train(log.end_offset(project.config.topics.samples, 0), stop)
        learned, commits = trainer.samples - before, trainer.commits - commits_before
        rows = [len(each.table) for each in trainer.tables.by_name.values()]
    finally:
        trainer.close()
    return learned / watch.seconds, {
        "samples": learned,
        "fields": len(project.config.fields),
        "tables": len(rows),
        "dim": 16,
        "batch": 2048,
        "rows at the end": sum(rows),
        "commits": commits,
        "cpu_s": watch.cpu_s,
        "seconds": watch.seconds,
        "peak_mib": peak_mib(),
    }


def _compare_trainers(rate: float) -> list[Figure]:
    """The same model, batch and keys in other libraries, if installed: rows in memory, nothing durable."""
    figures = []
    for name, peer, script, least in (
        ("TFRA", peers.TFRA, "tfra_trainer", 2.9),
        ("PyTorch's sparse rows", peers.TORCH, "torch_sparse_trainer", None),
    ):
        if measured := peers.run(peer, script):
            theirs = measured["samples_per_s"]
            figures.append(Figure(f"trainer, times {name}", rate / theirs, "x", {"theirs": theirs}, least=least))
    return figures
