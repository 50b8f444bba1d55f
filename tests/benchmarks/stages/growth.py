"""Growth: time and memory of join, trainer and commit by rows, fields and rate. No targets, one round.

Each line is measured in a separate process, so that memory is not counted twice.
"""

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.samples.run.in_process import run_samples
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.harness.isolated import process
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.harness.stopwatch import Stopwatch, peak_mib, resident_mib
from tests.benchmarks.load.stream import append_samples, stream_project
from tests.benchmarks.stages.join import SPAN_S, fill, join_project


class TimedTrainer(TrainerShard):
    """Records the duration of each commit and how long training was stalled for it."""

    commit_s: list[float]
    stall_s: list[float]

    def commit(self, *, flush: bool = False) -> VersionId:
        self.committer.drain()
        self.record()
        return super().commit(flush=flush)

    def record(self) -> None:
        self.commit_s.append(self.committer.commit_s)
        self.stall_s.append(self.committer.stall_s)


def measure(folder: Path, quick: bool) -> list[Figure]:
    scale = 20 if quick else 1
    figures: list[Figure] = []
    for rows in (250_000, 1_000_000, 4_000_000):
        figures += _alone(_join, folder / f"join-{rows}", rows // scale)
    for fields, rows in ((6, 250_000), (26, 250_000), (26, 1_000_000)):
        figures += _alone(_trainer, folder / f"trainer-{fields}-{rows}", fields, rows // scale, 1.0)
    for every_s in (0.25, 4.0):
        figures += _alone(_trainer, folder / f"trainer-every-{every_s}", 26, 250_000 // scale, every_s)
    return [*figures, *_alone(_kept, folder / "kept", 10_000 // scale)]


def _alone(function: Callable[..., list[Figure]], *arguments: object) -> list[Figure]:
    with process() as fresh:
        return fresh.submit(function, *arguments).result()


def _join(folder: Path, rows: int) -> list[Figure]:
    project = join_project(folder, SPAN_S / 20)
    log = open_log(project)
    events, before_mib = fill(project, log, rows), resident_mib()
    with Stopwatch() as watch:
        run_samples(project, log, until_end=True)
    sizes = {"events": events, "before_mib": before_mib, "peak_mib": peak_mib(), "cpu_s": watch.cpu_s}
    return [Figure("growth: join", events / watch.seconds, "events/s", sizes)]


def _trainer(folder: Path, fields: int, rows: int, commit_every_s: float) -> list[Figure]:
    project = stream_project(folder, fields, train={"commit_every_s": commit_every_s})
    log = open_log(project)
    append_samples(project, log, seed=1, rows=rows, per_second=50_000)
    before_mib = resident_mib()
    trainer = TimedTrainer(project, log, VersionStore(project), 0)
    trainer.commit_s, trainer.stall_s = [], []
    try:
        trainer.train(1, threading.Event())
        learned = trainer.samples
        trainer.commit_s.clear()
        trainer.stall_s.clear()
        with Stopwatch() as watch:
            trainer.train(log.end_offset(project.config.topics.samples, 0), threading.Event())
        trainer.record()
        keys = sum(len(each.table) for each in trainer.tables.by_name.values())
        learned = trainer.samples - learned
    finally:
        trainer.close()
    sizes = {"samples": learned, "fields": fields, "commit_every_s": commit_every_s, "rows": keys}
    sizes |= {"before_mib": before_mib, "peak_mib": peak_mib(), "disk_mib": _disk_mib(project), "cpu_s": watch.cpu_s}
    longest = {"commits": len(trainer.commit_s), "longest_ms": max(trainer.commit_s) * 1000}
    longest["training_stall_ms"] = float(np.median(trainer.stall_s)) * 1000
    return [
        Figure("growth: trainer", learned / watch.seconds, "samples/s", sizes),
        Figure("growth: one commit", float(np.median(trainer.commit_s)) * 1000, "ms", sizes | longest),
    ]


def _kept(folder: Path, batches: int) -> list[Figure]:
    """What a trainer keeps of batches: after `batches`, and after ten times as many of the same keys."""
    project = stream_project(folder, 2, model={"batch_size": 16})
    log, topic, rows = open_log(project), project.config.topics.samples, 16 * batches
    append_samples(project, log, seed=1, rows=rows, per_second=50_000)
    trainer = TrainerShard(project, log, VersionStore(project), 0)
    try:
        kept = [_learned(trainer, log.end_offset(topic, 0))]
        for number in range(1, 10):
            append_samples(project, log, seed=1, rows=rows, per_second=50_000, start=number * rows, again=True)
            kept.append(_learned(trainer, log.end_offset(topic, 0)))
    finally:
        trainer.close()
    objects, mib = (after - before for before, after in zip(kept[0], kept[-1], strict=True))
    sizes = {"batches": trainer.batches, "commits": trainer.commits, "objects before": kept[0][0], "mib more": mib}
    return [
        Figure("growth: objects kept of a thousand batches", objects / (9 * batches / 1000), "objects", sizes, most=10)
    ]


def _learned(trainer: TrainerShard, stop_offset: int) -> tuple[int, int]:
    """Objects and resident MiB after learning up to an offset."""
    trainer.train(stop_offset, threading.Event())
    gc.collect()
    return len(gc.get_objects()), resident_mib()


def _disk_mib(project: Project) -> int:
    """Size of the versions on disk."""
    return sum(path.stat().st_size for path in project.versions.rglob("*") if path.is_file()) >> 20
