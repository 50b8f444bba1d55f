"""The cold tier: the same stream learned with all rows in memory, and with half of their memory.

The model of `trainer`: 26 fields × dim 16, MLP 256-128, batch 2,048, a commit every second; keys of a Zipf distribution
with exponent 1.2, or 1.05, over a million values per field. The samples are learned twice, each time by a new process;
what is measured is the second time, where every key has its row. Half of the memory that all rows need is the budget.
While it is measured, a thread tells the system to drop the version files from the page cache every 100 ms
(POSIX_FADV_DONTNEED), so that cold rows are read from the disk. Whether both learned the same is compared.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline.logs.open import open_log
from pipeline.trainer.run.shard import TrainerShard
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.harness.isolated import process
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.harness.stopwatch import Stopwatch
from tests.benchmarks.harness.usage import Usage
from tests.benchmarks.load.stream import THREE_FIELDS, VALUES, ZIPF, World, append_samples, stream_project

_WARM_UP_RECORDS = 4
_SHARE = 0.5


def measure(folder: Path, quick: bool) -> list[Figure]:
    fields, rows = (4, 50_000) if quick else (26, 1_000_000)
    return [
        figure
        for exponent in ((1.2,) if quick else (1.2, ZIPF))
        for figure in _compared(folder / str(exponent), fields, rows, exponent)
    ]


def _compared(folder: Path, fields: int, rows: int, exponent: float) -> list[Figure]:
    resident = _in_process(folder / "resident", fields, rows, exponent, None)
    budget = int(resident["row bytes"] * _SHARE)
    tiered = _in_process(folder / "tiered", fields, rows, exponent, budget)
    name = f"tiers, Zipf {exponent:g}"
    sizes = {"rows": tiered["rows"], "cold share": tiered["cold rows"] / tiered["rows"], "budget MB": budget / 1e6}
    kept = {"resident": resident["samples/s"], "tiered": tiered["samples/s"]}
    reads = {key: tiered[key] for key in ("cold reads a batch", "disk reads MB", "prepare misses", "page cache")}
    both = {"resident": resident, "tiered": tiered}
    used = {f"{key} {what}": found[key] for what, found in both.items() for key in ("rss MB", "core-ms a batch")}
    return [
        Figure(f"{name}, rate", tiered["samples/s"] / resident["samples/s"], "x resident", sizes | kept | reads),
        Figure(f"{name}, memory", tiered["rss MB"] / resident["rss MB"], "x resident", used),
        Figure(f"{name}, same digest", float(tiered["digest"] == resident["digest"]), "1 if equal", least=1),
    ]


def _in_process(folder: Path, fields: int, rows: int, exponent: float, memory_bytes: int | None) -> dict[str, Any]:
    with process() as first:
        first.submit(_learn, folder, fields, rows, exponent, memory_bytes, False).result()
    with process() as second:
        return second.submit(_learn, folder, fields, rows, exponent, memory_bytes, True).result()


def _learn(
    folder: Path, fields: int, rows: int, exponent: float, memory_bytes: int | None, again: bool
) -> dict[str, Any]:
    """Learn the samples the first time, or `again`, and say what that took."""
    train = {"commit_every_s": 1.0, "commit_every_log_s": None, "memory_bytes": memory_bytes}
    project = stream_project(folder, fields, train=train)
    log, topic = open_log(project), project.config.topics.samples
    append_samples(
        project, log, 1, rows, 50_000, World(_to_exponent(exponent), THREE_FIELDS.logit), rows * again, again=again
    )
    with closing(TrainerShard(project, log, VersionStore(project), 0)) as trainer:
        start = log.end_offset(topic, 0) // 2 if again else 0
        trainer.train(start + _WARM_UP_RECORDS, threading.Event())
        before, samples, batches, counts = Usage.now(), trainer.samples, trainer.batches, _counts(trainer)
        read = psutil.Process().io_counters().read_bytes
        with Stopwatch() as watch, _without_page_cache(project.versions):
            trainer.train(log.end_offset(topic, 0), threading.Event())
        used, after = Usage.now().since(before), _counts(trainer)
        batches = trainer.batches - batches
        tables = [each.table for each in trainer.tables.by_name.values()]
        return {
            "samples/s": (trainer.samples - samples) / watch.seconds,
            "rows": after["rows"],
            "cold rows": after["cold_rows"],
            "row bytes": sum(len(table) * table.resident_row_bytes for table in tables),
            "cold reads a batch": (after["cold_reads"] - counts["cold_reads"]) / batches,
            "prepare misses": after["prepare_misses"],
            "disk reads MB": (psutil.Process().io_counters().read_bytes - read) / 1e6,
            "page cache": "dropped every 100 ms",
            "rss MB": psutil.Process().memory_info().rss / 1e6,
            "core-ms a batch": used.per_batch(batches)["core-ms"],
            "digest": VersionStore(project).lineage(0)[-1].digest,
        }


def _counts(trainer: TrainerShard) -> dict[str, int]:
    counts = [vars(each.counts()) for each in trainer.tables.by_name.values()]
    return {name: sum(each[name] for each in counts) for name in counts[0]}


def _to_exponent(exponent: float) -> Any:
    """From values of a Zipf distribution with `ZIPF` to values of one with `exponent`, by their rank."""
    weights = [np.arange(1, VALUES + 1, dtype=np.float64) ** -each for each in (ZIPF, exponent)]
    given, wanted = (np.cumsum(each) / each.sum() for each in weights)
    mapped = np.minimum(np.searchsorted(wanted, given - weights[0] / weights[0].sum() / 2), VALUES - 1)
    return lambda _, column: mapped[column].astype(np.int64)


@contextmanager
def _without_page_cache(folder: Path) -> Iterator[None]:
    """Inside, the system drops the pages of version files every 100 ms."""
    stop = threading.Event()

    def drop() -> None:
        while not stop.wait(0.1):
            for path in folder.rglob("*.[vm]er*"):
                try:
                    descriptor = os.open(path, os.O_RDONLY)
                except FileNotFoundError:
                    continue
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)

    dropping = threading.Thread(target=drop)
    dropping.start()
    try:
        yield
    finally:
        stop.set()
        dropping.join()
