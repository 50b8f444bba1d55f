"""The cold tier: the same stream learned with all rows in memory, and with half of their memory.

The model of `trainer`: 26 fields × dim 16, MLP 256-128, batch 2,048, a commit every second. A first process learns
every value of every field once, and then samples whose values have a Zipf distribution with exponent 1.2, or 1.05; a
second one, which is measured, learns new samples of the same distribution. The budget is half of what all rows take.
While it is measured, a thread has the system drop the version files from the page cache every 100 ms
(POSIX_FADV_DONTNEED), so that cold rows are read from the disk. Whether both learned the same is compared.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
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
from tests.benchmarks.load.stream import THREE_FIELDS, VALUES, ZIPF, Integers, World, append_samples, stream_project

_WARM_UP_RECORDS = 4
_SHARE = 0.5


def measure(folder: Path, quick: bool) -> list[Figure]:
    fields, values, rows = (4, 10_000, 60_000) if quick else (26, 400_000, 400_000)
    return [
        figure
        for exponent in ((1.2,) if quick else (1.2, ZIPF))
        for figure in _compared(folder / str(exponent), Stream(fields, values, rows, exponent))
    ]


_USED = ("rss MB", "tables MB", "core-ms a batch")


@dataclass(frozen=True)
class Stream:
    """`values` of each field, and `rows` samples of a Zipf distribution over them in each of two processes."""

    fields: int
    values: int
    rows: int
    exponent: float


def _compared(folder: Path, stream: Stream) -> list[Figure]:
    resident = _in_process(folder / "resident", stream, None)
    budget = int(resident["row bytes"] * _SHARE)
    tiered = _in_process(folder / "tiered", stream, budget)
    name = f"tiers, Zipf {stream.exponent:g}"
    sizes = {"rows": tiered["rows"], "cold share": tiered["cold rows"] / tiered["rows"], "budget MB": budget / 1e6}
    kept = {"resident": resident["samples/s"], "tiered": tiered["samples/s"]}
    reads = {key: tiered[key] for key in ("cold reads a batch", "disk reads MB", "prepare misses", "page cache")}
    both = {"resident": resident, "tiered": tiered}
    used = {f"{key} {what}": found[key] for what, found in both.items() for key in _USED}
    return [
        Figure(f"{name}, rate", tiered["samples/s"] / resident["samples/s"], "x resident", sizes | kept | reads),
        Figure(f"{name}, memory of tables", tiered["tables MB"] / resident["tables MB"], "x resident", used),
        Figure(f"{name}, same digest", float(tiered["digest"] == resident["digest"]), "1 if equal", least=1),
    ]


def _in_process(folder: Path, stream: Stream, memory_bytes: int | None) -> dict[str, Any]:
    with process() as first:
        first.submit(_learn, folder, stream, memory_bytes, measured=False).result()
    with process() as second:
        found: dict[str, Any] = second.submit(_learn, folder, stream, memory_bytes, measured=True).result()
        return found


def _learn(folder: Path, stream: Stream, memory_bytes: int | None, *, measured: bool) -> dict[str, Any]:
    """Learn the first samples, or those that are `measured`, and say what that took."""
    train = {"commit_every_s": 1.0, "commit_every_log_s": None, "memory_bytes": memory_bytes}
    project = stream_project(folder, stream.fields, train=train)
    log, topic = open_log(project), project.config.topics.samples
    start = log.end_offset(topic, 0) if measured else 0
    drawn = World(_zipf_over(stream), THREE_FIELDS.logit)
    if measured:
        append_samples(project, log, 2, stream.rows, 50_000, drawn, stream.values + stream.rows)
    else:
        append_samples(project, log, 1, stream.values, 50_000, World(_each_once(stream), THREE_FIELDS.logit))
        append_samples(project, log, 1, stream.rows, 50_000, drawn, stream.values)
    with closing(TrainerShard(project, log, VersionStore(project), 0)) as trainer:
        trainer.train(start + _WARM_UP_RECORDS, threading.Event())
        core_s, samples, batches, counts = time.process_time(), trainer.samples, trainer.batches, _counts(trainer)
        read = psutil.Process().io_counters().read_bytes
        with Stopwatch() as watch, _without_page_cache(project.versions):
            trainer.train(log.end_offset(topic, 0), threading.Event())
        core_s, after, batches = time.process_time() - core_s, _counts(trainer), trainer.batches - batches
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
            "tables MB": sum(table.memory_bytes for table in tables) / 1e6,
            "rss MB": psutil.Process().memory_info().rss / 1e6,
            "core-ms a batch": core_s * 1000 / batches,
            "digest": VersionStore(project).lineage(0)[-1].digest,
        }


def _counts(trainer: TrainerShard) -> dict[str, int]:
    counts = [vars(each.counts()) for each in trainer.tables.by_name.values()]
    return {name: sum(each[name] for each in counts) for name in counts[0]}


def _zipf_over(stream: Stream) -> Callable[[int, Integers], Integers]:
    """From values of a Zipf distribution with `ZIPF` over a million to the stream's, by their cumulated shares."""
    given = np.arange(1, VALUES + 1, dtype=np.float64) ** -ZIPF
    wanted = np.cumsum(np.arange(1, stream.values + 1, dtype=np.float64) ** -stream.exponent)
    random = np.random.default_rng(3)
    stops, shares = np.cumsum(given) / given.sum(), given / given.sum()

    def values(_: int, column: Integers) -> Integers:
        places = stops[column] - random.random(len(column)) * shares[column]
        return np.minimum(np.searchsorted(wanted / wanted[-1], places), stream.values - 1).astype(np.int64)

    return values


def _each_once(stream: Stream) -> Callable[[int, Integers], Integers]:
    """Every value of a field in turn."""
    learned = [0] * stream.fields

    def values(field: int, column: Integers) -> Integers:
        first, learned[field] = learned[field], learned[field] + len(column)
        return (first + np.arange(len(column))) % stream.values

    return values


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
