"""One commit of a million touched rows: the time until it is durable, and how long training is stalled for it.

26 fields × dim 16, every row new to serving, as after a burst. One commit with training waiting, one during training.
For comparison, the same number of bytes is written and fsynced at once.
"""

import os
import threading
import time
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.logs.open import open_log
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.state import VersionId, VersionSummary
from pipeline.versions.store.files import read_commit
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.load.stream import append_samples, stream_project

_NEVER = {"commit_every_s": 1e9, "commit_every_log_s": None}


class ManualCommits(TrainerShard):
    """Commits only on `commit_now`, not at the end of `train`."""

    def commit(self, *, flush: bool = False) -> VersionId | None:
        return None

    def commit_now(self) -> None:
        super().commit()


def measure(folder: Path, quick: bool) -> list[Figure]:
    rows, fields = (20_000, 4) if quick else (600_000, 26)
    project = stream_project(folder, fields=fields, train=_NEVER)
    log, store = open_log(project), VersionStore(project)
    append_samples(project, log, seed=1, rows=rows, per_second=50_000)
    end = log.end_offset(project.config.topics.samples, 0)
    trainer, stop = ManualCommits(project, log, store, 0), threading.Event()
    try:
        _commit(trainer, 1, 1, stop)  # the first version is full
        waited_s, _ = _commit(trainer, end // 4, end // 4, stop)
        beside_s, stopped_s = _commit(trainer, end // 2, end, stop)
    finally:
        trainer.close()
    first, second = (_sizes(project, version, fields) for version in store.lineage(0)[-2:])
    written_ms = _write_ms(folder / "written", first["version_bytes"])
    return [
        Figure("commit of touched rows, training waits", waited_s * 1000, "ms", first, most=350.0),
        Figure("commit of touched rows, beside training", beside_s * 1000, "ms", second),
        Figure("training stands still for it, longest stretch", stopped_s * 1000, "ms", second, most=20.0),
        Figure("as many bytes written and fsynced", written_ms, "ms", {"bytes": first["version_bytes"]}),
    ]


def _commit(trainer: ManualCommits, after: int, until: int, stop: threading.Event) -> tuple[float, float]:
    """Train to `after`, commit, and meanwhile train to `until`; returns (commit, longest stall), both in seconds."""
    trainer.train(after, stop)
    trainer.commit_now()
    if until > after:
        trainer.train(until, stop)
    stopped_s = trainer.committer.longest_stall_s
    trainer.committer.drain()
    return trainer.committer.commit_s, stopped_s


def _sizes(project: Project, version: VersionSummary, fields: int) -> dict[str, int]:
    commit = read_commit(VersionStore(project).folder / version.path)
    rows = sum(len(change.keys) for change in commit.fields.values())
    return {"fields": fields, "dim": 16, "rows": rows, "version_bytes": version.size_bytes}


def _write_ms(path: Path, size: int) -> float:
    content = os.urandom(size)
    started_s = time.perf_counter()
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return (time.perf_counter() - started_s) * 1000
