"""The cost of importance and convergence in the trainer: ns per row, measured in pairs, times the rows per batch.

In the trainer's rate the difference is below the noise, so the update of a row is measured separately.
"""

import ctypes
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.harness.report import Figure
from tests.benchmarks.peers.zipf import batches

_ROOT = Path(__file__).parents[3] / "native"
_TABLE_ROWS, _PASSES = 2_000_000, 101


def measure(folder: Path, samples_per_s: float) -> list[Figure]:
    """Tracking's share of the time that a trainer of `samples_per_s` has for a batch; empty without a compiler."""
    try:
        library = _built(folder)
    except (OSError, subprocess.CalledProcessError) as failure:
        print(f"tracking is not measured: {failure}", file=sys.stderr)
        return []
    keys, labels = next(batches(1))
    rows = len(np.unique(keys))
    more_ns = _more_ns(library, rows)
    low, middle, high = np.percentile(more_ns, (5, 50, 95))
    batch_ns = len(labels) / samples_per_s * 1e9
    sizes = {"ns a row": middle, "5 to 95 % of pairs, ns": f"{low:.1f} to {high:.1f}", "rows a batch": rows}
    return [Figure("trainer, of which tracking", 100 * middle * rows / batch_ns, "%", sizes, most=3.0)]


def _more_ns(library: ctypes.CDLL, rows: int) -> np.ndarray:
    """[passes] float64: additional time per row with tracking, in alternating pairs."""
    random = np.random.default_rng(1)
    gradients = random.normal(size=(rows, 16)).astype(np.float32)
    differences = []
    for number in range(_PASSES):
        which = random.integers(0, _TABLE_ROWS, rows).astype(np.uint32)
        spent = {}
        for tracked in (0, 1) if number % 2 else (1, 0):
            began = time.thread_time()
            library.tracking_pass(which.ctypes.data, rows, _TABLE_ROWS, gradients.ctypes.data, tracked)
            spent[tracked] = time.thread_time() - began
        differences.append((spent[1] - spent[0]) / rows * 1e9)
    return np.array(differences[1:])


def _built(folder: Path) -> ctypes.CDLL:
    library = folder / "tracking.so"
    sources = [
        Path(__file__).with_suffix(".cc"),
        _ROOT / "table/statistics.cc",
        *sorted(_ROOT.glob("table/optimizers/*.cc")),
    ]
    command = ["c++", "-std=c++20", "-O3", "-ffp-contract=off", "-shared", "-fPIC", f"-I{_ROOT}"]
    subprocess.run([*command, *map(str, sources), "-o", str(library)], check=True, capture_output=True, text=True)
    built = ctypes.CDLL(str(library))
    built.tracking_pass.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int]
    return built
