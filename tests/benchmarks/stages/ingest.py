"""Ingest: rows per second from a Parquet file to the log, typed, packed and durable."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ingest.ingest import ingest
from pipeline.logs.open import open_log
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.harness.stopwatch import Stopwatch, peak_mib
from tests.benchmarks.load.stream import START_MS
from tests.benchmarks.stages.join import join_project


def measure(folder: Path, quick: bool) -> list[Figure]:
    rows = 20_000 if quick else 2_000_000
    project = join_project(folder, 600.0)
    log = open_log(project)
    path = folder / "impressions.parquet"
    pq.write_table(_table(rows), path)
    with Stopwatch() as watch:
        report = ingest(project, log, "impressions", [path])
    assert (report.rows, report.bad_rows) == (rows, 0), f"{report} of {rows} rows"
    sizes = {"rows": rows, "file_mib": path.stat().st_size / 2**20, "cpu_s": watch.cpu_s, "peak_mib": peak_mib()}
    return [Figure("ingest from Parquet", rows / watch.seconds, "rows/s", sizes, least=100_000)]


def _table(rows: int) -> pa.Table:
    random = np.random.default_rng(1)
    names = pa.array([f"n{number}" for number in range(10_000)])
    return pa.table(
        {
            "at": pa.array(START_MS + np.arange(rows)),
            "id": pa.array(random.permutation(rows)),
            "user": names.take(pa.array(random.integers(0, 10_000, rows))),
            "item": names.take(pa.array(random.integers(0, 10_000, rows))),
            "position": pa.array(random.integers(0, 10, rows)),
            "price": pa.array(np.round(random.exponential(20, rows), 2)),
        }
    )
