"""Trainer: samples per second from a samples log on disk into a store grown from empty.

26 fields × dim 16, MLP 256-128, batch 2,048, deterministic, importance, convergence and progressive validation on,
a commit with its realtime delta every second.
"""

import threading
from pathlib import Path

from pipeline.logs.open import open_log
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks import peers, tracking
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.harness.stopwatch import Stopwatch, peak_mib
from tests.benchmarks.load.stream import append_samples, stream_project

_WARM_UP_RECORDS = 4


def measure(folder: Path, quick: bool) -> list[Figure]:
    rows = 50_000 if quick else 600_000
    project = stream_project(folder, fields=4 if quick else 26)
    log = open_log(project)
    append_samples(project, log, seed=1, rows=rows, per_second=50_000)
    trainer, stop = TrainerShard(project, log, VersionStore(project), 0), threading.Event()
    try:
        # Building and compiling the network is part of the start, not of the rate.
        trainer.train(_WARM_UP_RECORDS, stop)
        before, commits_before = trainer.samples, trainer.commits
        with Stopwatch() as watch:
            trainer.train(log.end_offset(project.config.topics.samples, 0), stop)
        learned, commits = trainer.samples - before, trainer.commits - commits_before
        keys = sum(len(field.table) for field in trainer.tables.fields.values())
    finally:
        trainer.close()
    sizes = {
        "samples": learned,
        "fields": len(project.config.fields),
        "dim": 16,
        "batch": 2048,
        "rows at the end": keys,
        "commits": commits,
        "cpu_s": watch.cpu_s,
        "seconds": watch.seconds,
        "peak_mib": peak_mib(),
    }
    rate = learned / watch.seconds
    compared = [] if quick else tracking.measure(folder, rate) + _compare_trainers(rate)
    return [Figure("trainer", rate, "samples/s", sizes, least_ratio=0.7), *compared]


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
