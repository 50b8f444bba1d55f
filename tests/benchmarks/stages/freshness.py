"""Freshness: from a version's commit to the same version visible in a replica that follows in another process.

Measured both from the begin of the commit (files, ledger and publishing included) and from the move of CURRENT, when it
is durable. The replica follows as `springtide replica` does. Clocks: CLOCK_MONOTONIC, one for all processes.
"""

import threading
import time
from pathlib import Path

import numpy as np

from pipeline.configuration.deployment.serving import Serving
from pipeline.configuration.project import Project
from pipeline.formats.container import Draft
from pipeline.logs.open import open_log
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.load.stream import append_samples, stream_project
from tests.benchmarks.load.watched import Watched

FIELDS, DIM, BATCH = 4, 8, 256


class TimedStore(VersionStore):
    """Records when CURRENT moved to each version, in seconds."""

    def __init__(self, project: Project) -> None:
        super().__init__(project)
        self.moved: dict[str, float] = {}

    def commit(self, commit: Commit, draft: Draft | None = None) -> None:
        super().commit(commit, draft)
        self.moved[str(commit.id)] = time.monotonic()


class TimedTrainer(TrainerShard):
    """Records when each commit began, in seconds."""

    begun: dict[str, float]

    def commit(self, *, flush: bool = False) -> VersionId:
        at_s = time.monotonic()
        id = super().commit(flush=flush)
        self.begun[str(id)] = at_s
        # Commits at no fixed phase of the replica's polling.
        time.sleep(0.02)
        return id


def measure(folder: Path, quick: bool) -> list[Figure]:
    commits = 20 if quick else 300
    begun, moved, seen = _run(folder, commits)
    ids = [id for id in begun if id in seen]
    assert ids, "the replica showed no version"
    sizes = {"commits": len(begun), "seen one by one": len(ids), "fields": FIELDS, "dim": DIM, "batch": BATCH}
    sizes |= {"replica": f"another process, waits in the log {Serving().poll_ms} ms at a time"}
    figures = []
    for name, starts, most in (("CURRENT moved", moved, 20.0), ("commit began", begun, None)):
        lags = np.array([(seen[id] - starts[id]) * 1000 for id in ids])
        for percent in (50, 99):
            target = most if percent == 99 else None
            value = float(np.percentile(lags, percent))
            figures.append(Figure(f"freshness p{percent}, {name} to visible", value, "ms", sizes, most=target))
    return figures


def _run(folder: Path, commits: int) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """By version: when its commit began, when CURRENT moved, when the replica served it."""
    project = _project(folder)
    log, store = open_log(project), TimedStore(project)
    append_samples(project, log, seed=1, rows=commits * BATCH, per_second=50_000)
    trainer = TimedTrainer(project, log, store, 0)
    trainer.begun = {}
    try:
        with Watched(folder, _project) as replica:
            trainer.train(log.end_offset(project.config.topics.samples, 0), threading.Event())
            time.sleep(0.5)
            seen = dict(replica.seen())
    finally:
        trainer.close()
    return trainer.begun, store.moved, seen


def _project(folder: Path) -> Project:
    train = {"commit_every_s": 3600.0, "commit_every_batches": 1}
    return stream_project(folder, FIELDS, DIM, model={"batch_size": BATCH}, train=train)
