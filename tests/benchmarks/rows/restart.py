"""A restart: from opening a shard of a large version until its first batch is learned.

Four fields with one table, dim 16 with row-wise Adagrad. A first process learns some samples and adds a version of many
rows of random numbers, which serving holds as zeros of 8 bits; each other process restores it and learns. The version's
file is dropped from the page cache before (POSIX_FADV_DONTNEED). The budget is half of what all rows take.
"""

import os
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline.arrays.types import UInt64s
from pipeline.logs.open import open_log
from pipeline.trainer.run.shard import TrainerShard
from pipeline.trainer.tables.table import Table, row_dtype
from pipeline.versions.deltas.delta import decode_delta, encode_delta
from pipeline.versions.state import FieldChange
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.harness.isolated import process
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.load.stream import RECORD_ROWS, append_samples, stream_project

_DIM, _PAYLOAD_BYTES = 16, 17
_TABLE = "t0"


def measure(folder: Path, quick: bool) -> list[Figure]:
    rows = 100_000 if quick else 20_000_000
    with process() as first:
        row_bytes = first.submit(_prepare, folder, rows).result()
    budget = int(rows * row_bytes / 2)
    figures = []
    for name, memory_bytes in (("half of the rows in memory", budget), ("all rows in memory", None)):
        with process() as second:
            found = second.submit(_restart, folder, memory_bytes).result()
        least = {"most": 5.0} if memory_bytes else {}
        figures.append(Figure(f"restart, {name}", found["first batch s"], "s", {"rows": rows} | found, **least))
    return figures


def _project(folder: Path, memory_bytes: int | None) -> Any:
    train = {"commit_every_s": 1.0, "commit_every_log_s": None, "memory_bytes": memory_bytes}
    return stream_project(folder, 4, _DIM, tables=1, train=train)


def _prepare(folder: Path, rows: int) -> int:
    """Commit the version; returns the bytes of a row in memory."""
    project = _project(folder, None)
    log, store = open_log(project), VersionStore(project)
    append_samples(project, log, 1, 32_768, 50_000)
    with closing(TrainerShard(project, log, store, 0)) as trainer:
        trainer.train(log.end_offset(project.config.topics.samples, 0), threading.Event())
        table: Table = trainer.tables.by_name[_TABLE].table
        row_bytes = table.resident_row_bytes
    current = store.restore(store.current(0))
    sequence = current.id.sequence
    delta = replace(decode_delta(current.delta), from_sequence=sequence, to_sequence=sequence + 1)
    store.commit(
        replace(
            current, id=store.next_id(0), parent=current.id, epoch=store.raise_epoch(0), delta=encode_delta(delta),
            fields={_TABLE: _grown(current.fields[_TABLE], rows)}, full=True,
            next_handles={_TABLE: current.next_handles[_TABLE] + rows},
        )
    )  # fmt: skip
    return row_bytes


def _grown(change: FieldChange, rows: int) -> FieldChange:
    """The table with so many more rows."""
    random = np.random.default_rng(1)
    added = np.setdiff1d(random.integers(0, 2**64, rows, np.uint64), change.keys)
    handles = np.arange(len(added), dtype=np.uint32) + np.uint32(change.served_handles.max() + 1)
    keys, order = _order(np.concatenate([change.keys, added]))
    packed = np.concatenate([change.rows, _random_rows(random, len(added))])[order]
    served, by_key = _order(np.concatenate([change.served_keys, added]))
    n, payload = len(served), np.zeros(len(served) * _PAYLOAD_BYTES, np.uint8)
    return replace(
        change, keys=keys, rows=packed, served_keys=served, served_bits=np.full(n, 8, np.uint8),
        served_handles=np.concatenate([change.served_handles, handles])[by_key], served_payload=payload,
        served_touched=change.served_keys,
    )  # fmt: skip


def _order(keys: UInt64s) -> tuple[UInt64s, Any]:
    order = np.argsort(keys)
    return keys[order], order


def _random_rows(random: np.random.Generator, n: int) -> Any:
    rows = np.zeros(n, row_dtype(_DIM, 1))
    for start in range(0, n, 1 << 20):
        part = rows[start : start + (1 << 20)]
        part["weights"] = random.standard_normal((len(part), _DIM), np.float32) * 0.1
        part["state"], part["count"] = 0.1, random.zipf(1.5, len(part)).clip(max=1 << 20)
        part["last_seen_s"], part["importance"], part["unsettled"] = 1_700_000_000, 0.1, 1.0
    return rows.view(np.uint8).reshape(n, -1)


def _restart(folder: Path, memory_bytes: int | None) -> dict[str, Any]:
    project = _project(folder, memory_bytes)
    for path in project.versions.rglob("*.[vm]er*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    log, stop, times = open_log(project), threading.Event(), {}
    topic = project.config.topics.samples
    append_samples(project, log, 2, 65_536, 50_000, start=log.end_offset(topic, 0) * RECORD_ROWS)
    began_s = time.perf_counter()
    with closing(TrainerShard(project, log, VersionStore(project), 0)) as trainer:
        times["opened s"] = time.perf_counter() - began_s

        def watch() -> None:
            while not trainer.batches and not stop.wait(0.002):
                pass
            times["first batch s"] = time.perf_counter() - began_s
            times["rss MB then"] = psutil.Process().memory_info().rss / 1e6

        watching = threading.Thread(target=watch)
        watching.start()
        trainer.train(log.end_offset(topic, 0), stop)
        stop.set()
        watching.join()
        times["everything s"] = time.perf_counter() - began_s
        table = trainer.tables.by_name[_TABLE].table
        times |= {"cold rows": table.cold_rows, "rss MB": psutil.Process().memory_info().rss / 1e6}
    return times
