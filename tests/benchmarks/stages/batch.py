"""A batch of the trainer: what it takes of the machine, growing from empty and warm, where every key has its row.

The model and stream of `trainer`: 26 fields × dim 16, MLP 256-128, batch 2,048, a commit every second. The same samples
are learned twice; their second time is warm. Peers learn as many batches twice, without a log and without commits.
"""

import threading
from pathlib import Path
from typing import Any

from pipeline.logs.open import open_log
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks import peers
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.harness.stopwatch import Stopwatch
from tests.benchmarks.harness.usage import Usage
from tests.benchmarks.load.stream import append_samples, stream_project

_WARM_UP_RECORDS, _BATCH = 4, 2048
_PEERS = (
    ("TFRA", peers.TFRA, "tfra_trainer", {"growing": 2.0, "warm": 2.5}),
    ("PyTorch's sparse rows", peers.TORCH, "torch_sparse_trainer", {"warm": 3.0}),
)


def measure(folder: Path, quick: bool) -> list[Figure]:
    rows = 50_000 if quick else 600_000
    found = learn_twice(folder, 4 if quick else 26, rows)
    figures = [
        Figure("batch, growing", found["growing"].rate, "samples/s", found["growing"].sizes, least_ratio=0.5),
        Figure("batch, warm", found["warm"].rate, "samples/s", found["warm"].sizes, least_ratio=0.7),
        Figure("batch, growing, outside TensorFlow", found["growing"].outside_core_ms, "core-ms"),
        Figure("batch, warm, outside TensorFlow", found["warm"].outside_core_ms, "core-ms", most=12),
        Figure("batch, warm, page faults", found["warm"].sizes["page faults"], "a batch"),
    ]
    return figures if quick else [*figures, *_beside_peers({name: each.rate for name, each in found.items()}, rows)]


class _Pass:
    """What learning a stretch of the log took."""

    def __init__(self, trainer: TrainerShard, stop_offset: int) -> None:
        batches, samples, commits, before = trainer.batches, trainer.samples, trainer.commits, Usage.now()
        with Stopwatch() as watch:
            trainer.train(stop_offset, threading.Event())
        learned, used = trainer.batches - batches, Usage.now().since(before)
        self.rate = (trainer.samples - samples) / watch.seconds
        self.sizes: dict[str, Any] = {"batches": learned, "commits": trainer.commits - commits}
        self.sizes |= used.per_batch(learned)
        self.outside_core_ms = self.sizes["core-ms outside TensorFlow"]


def learn_twice(folder: Path, fields: int, rows: int, **train: Any) -> dict[str, _Pass]:
    """What growing and warm batches took, with settings of `[train]`."""
    project = stream_project(folder, fields, train={"commit_every_s": 1.0, **train})
    log, topic = open_log(project), project.config.topics.samples
    append_samples(project, log, seed=1, rows=rows, per_second=50_000)
    first_end = log.end_offset(topic, 0)
    append_samples(project, log, seed=1, rows=rows, per_second=50_000, start=rows, again=True)
    trainer = TrainerShard(project, log, VersionStore(project), 0)
    try:
        # Building and compiling the network is part of the start.
        trainer.train(_WARM_UP_RECORDS, threading.Event())
        return {"growing": _Pass(trainer, first_end), "warm": _Pass(trainer, log.end_offset(topic, 0))}
    finally:
        trainer.close()


def _beside_peers(rates: dict[str, float], rows: int) -> list[Figure]:
    """As many batches of the same keys in other libraries, if installed: rows in memory, nothing durable."""
    figures = []
    for name, peer, script, least in _PEERS:
        if measured := peers.run(peer, script, steps=rows // _BATCH):
            for state, rate in rates.items():
                theirs = {key: value for key, value in measured.items() if key.startswith("warm_") == (state == "warm")}
                ratio = rate / measured["warm_samples_per_s" if state == "warm" else "samples_per_s"]
                figures.append(Figure(f"batch, {state}, times {name}", ratio, "x", theirs, least=least.get(state)))
    return figures
