"""What versions cost: commits of 100,000 touched rows into tables of growing size, and the merges beside them.

One table, dim 16 with row-wise Adagrad; touched keys are drawn from a Zipf distribution with exponent 1.2. Rows and
served entries are random bytes, so that nothing compresses. The store is driven as a trainer drives it: commits in one
thread, merges in another of lower priority. For comparison, the same table is written in full.
"""

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.arrays.types import UInt64s
from pipeline.trainer.tables.table import row_dtype
from pipeline.versions.state import Commit, FieldChange
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.harness.report import Figure
from tests.support.synthetic.commits import World, project_in

_DIM, _ROW_BYTES, _PAYLOAD_BYTES = 16, row_dtype(16, 1).itemsize, 17
_TOUCHED, _COMMITS = 100_000, 64
_ZIPF = 1.2

MERGE = """
import sys
from pathlib import Path
import psutil
from pipeline.versions.store.version_store import VersionStore
from pipeline.versions.store.merged_file import write_merged
from tests.support.synthetic.commits import project_in

store = VersionStore(project_in(Path(sys.argv[1])))
files = store.ledger.chain(store.current(0))
before = psutil.Process().memory_info().rss
write_merged(store.folder, "all.merged", files)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024 - before / (1 << 20), sum(f.file.size_bytes for f in files))
"""


def measure(folder: Path, quick: bool) -> list[Figure]:
    sizes = (20_000, 100_000) if quick else (1_000_000, 10_000_000)
    figures, first_ms = [], 0.0
    for rows in sizes:
        figures += _table(folder / str(rows), rows, _TOUCHED // 20 if quick else _TOUCHED, first_ms or None)
        first_ms = first_ms or figures[0].value
    return figures


def _table(folder: Path, rows: int, touched: int, smaller_ms: float | None) -> list[Figure]:
    """The figures of a table of `rows`; `smaller_ms`: the commit in a smaller one."""
    store = VersionStore(project_in(folder, retention={"all_s": 600}))
    world, random = World(store), np.random.default_rng(rows)
    sizes = {"rows": rows, "touched": touched, "commits": _COMMITS}
    whole = _change(random, np.sort(random.permutation(rows).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)))
    began_s = time.perf_counter()
    store.commit(_commit(world, whole, full=True))
    full_ms = (time.perf_counter() - began_s) * 1000
    times_ms, merged, committed = [], {}, 0
    with ThreadPoolExecutor(1) as maintenance:
        working = None
        for keys in _touched(random, whole.keys, touched):
            commit = _commit(world, _change(random, keys))
            began_s = time.perf_counter()
            store.commit(commit)
            times_ms.append((time.perf_counter() - began_s) * 1000)
            committed += store.ledger.version(commit.id).size_bytes
            if working is None or working.done():
                merged |= _merged_files(store)
                working = maintenance.submit(store.retain, 0, world.at_ms)
        working.result()
    merged |= _merged_files(store)
    chain = store.ledger.chain(store.current(0))
    began_s = time.perf_counter()
    store.restore(store.current(0))
    restored_s = time.perf_counter() - began_s
    store.close()
    most_ms = None if smaller_ms is None else 1.2 * smaller_ms
    memory_mb, bytes_merged = _merge_in_a_process(folder)
    return [
        Figure("commit of touched rows", float(np.median(times_ms)), "ms", sizes, most=most_ms),
        Figure("the same, slowest", max(times_ms), "ms", sizes),
        Figure("the table written in full", full_ms, "ms", sizes),
        Figure("bytes that merges write, per byte committed", sum(merged.values()) / committed, "x", sizes, most=3.0),
        Figure("files that restore the last version", len(chain), "", sizes),
        Figure("restored into memory", restored_s, "s", sizes),
        Figure("memory of a merge of everything", memory_mb, "MiB", {**sizes, "bytes": bytes_merged}, most=256.0),
    ]


def _touched(random: np.random.Generator, keys: UInt64s, touched: int) -> Iterator[UInt64s]:
    for _ in range(_COMMITS):
        drawn = np.unique(random.zipf(_ZIPF, 20 * touched) % len(keys))
        yield np.sort(keys[random.permutation(drawn)[:touched]])


def _change(random: np.random.Generator, keys: UInt64s) -> FieldChange:
    n, none = len(keys), np.empty(0, np.uint64)
    rows = np.frombuffer(random.bytes(n * _ROW_BYTES), np.uint8).reshape(n, _ROW_BYTES)
    payload = np.frombuffer(random.bytes(n * _PAYLOAD_BYTES), np.uint8)
    return FieldChange(
        _DIM, keys, rows, none, keys, np.arange(n, dtype=np.uint32), np.full(n, 8, np.uint8), payload, none,
        served_touched=None,
    )  # fmt: skip


def _commit(world: World, change: FieldChange, full: bool = False) -> Commit:
    commit = world.build(keys=1, removals=0)
    return replace(commit, fields={"user": change}, full=full)


def _merged_files(store: VersionStore) -> dict[str, int]:
    files = store.ledger.chain(store.current(0))
    return {file.path: file.file.size_bytes for file in files if file.path.endswith(".merged")}


def _merge_in_a_process(folder: Path) -> tuple[float, int]:
    """Growth of the resident memory, in MiB, of a process that merges all files of CURRENT, and their bytes."""
    command = [sys.executable, "-c", textwrap.dedent(MERGE), str(folder)]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(words[0]), int(words[1])
