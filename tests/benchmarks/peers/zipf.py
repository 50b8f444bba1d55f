"""The batches of all trainer peers: Zipf values, exponent 1.05 over a million, per field; NumPy only."""

import json
import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

FIELDS, DIM, LAYERS, BATCH = 26, 16, (256, 128), 2048
VALUES, EXPONENT = 1_000_000, 1.05


def batches(
    count: int, seed: int = 1, columns: int = FIELDS, tables: int = FIELDS
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`count` times keys [BATCH, columns] int64, table and value combined, and labels [BATCH] float32.

    Column c reads table c % tables.
    """
    random = np.random.default_rng(seed)
    cumulated = np.cumsum(np.arange(1, VALUES + 1, dtype=np.float64) ** -EXPONENT)
    cumulated /= cumulated[-1]
    for _ in range(count):
        values = np.searchsorted(cumulated, random.random((BATCH, columns))).astype(np.int64)
        yield values + np.arange(columns) % tables * VALUES, (random.random(BATCH) < 0.1).astype(np.float32)


def report(step: Callable[[Any, Any], float], ready: Sequence[tuple[Any, Any]], warm_up: int, columns: int) -> None:
    """Print, as one line of JSON, what `step` takes for the batches after the first `warm_up`, which are not counted.

    All of them are learned a second time, when every key has its row, for the entries `warm_…`.
    """
    for keys, labels in ready[:warm_up]:
        step(keys, labels)
    growing, warm = (_learn(step, ready[warm_up:], columns) for _ in range(2))
    print(json.dumps({**growing, **{f"warm_{name}": value for name, value in warm.items()}}))


def _learn(step: Callable[[Any, Any], float], ready: Sequence[tuple[Any, Any]], columns: int) -> dict[str, float]:
    began_s, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    losses = [step(keys, labels) for keys, labels in ready]
    taken_s, used = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_SELF)
    assert all(math.isfinite(loss) for loss in losses)
    spent_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    samples = len(ready) * BATCH
    return {
        "samples_per_s": samples / taken_s,
        "samples_per_core_s": samples / spent_s,
        "rows_per_core_s": samples * columns / spent_s,
        "core_ms_a_batch": 1e3 * spent_s / len(ready),
        "faults_a_batch": (used.ru_minflt - before.ru_minflt) / len(ready),
        "waits_a_batch": (used.ru_nvcsw - before.ru_nvcsw) / len(ready),
        "loss": losses[-1],
    }
