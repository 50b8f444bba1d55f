"""Unique: distinct keys, inverse and counts of a batch on one core, compared with TensorFlow and NumPy.

A batch is 26 fields × 2,048 samples of Zipf keys (exponent 1.05 over a million values, hashed); many batches use
one `Uniquer`, as in a trainer. `tf.unique_with_counts` is equivalent; `np.unique` also sorts.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.arrays.keys import hash_column
from pipeline.model.runtime import tf
from pipeline.trainer.batch.unique import Uniquer
from tests.benchmarks.harness.paired import Work, main, paired
from tests.benchmarks.harness.report import Figure, Result
from tests.benchmarks.load.stream import VALUES, ZIPF, zipf

FIELDS, SAMPLES = 26, 2048
LEAST = 40e6


def measure(quick: bool, rounds: int) -> list[Result]:
    count = 2 if quick else 20
    random = np.random.default_rng(1)
    batches = [hash_column(pa.array(zipf(random, FIELDS * SAMPLES)), 1) for _ in range(count)]
    fields = [part for batch in batches for part in np.split(batch, FIELDS)]
    whole = _results("unique: one batch", batches, LEAST, rounds)
    return whole + _results("unique: field by field", fields, None, rounds)


def _results(name: str, batches: list[np.ndarray], least: float | None, rounds: int) -> list[Result]:
    uniquer = Uniquer()
    distinct = float(np.mean([len(uniquer.unique(batch)[0]) for batch in batches]))
    sizes = {"keys": len(batches[0]), "distinct": distinct, "zipf": ZIPF, "values": VALUES, "threads": 1}
    keys = sum(map(len, batches))
    tensors = [tf.constant(batch.view(np.int64)) for batch in batches]
    peers = {
        "tf.unique_with_counts": _each(tf.unique_with_counts, tensors),
        "np.unique": _each(partial(np.unique, return_inverse=True, return_counts=True), batches),
    }
    work = _each(uniquer.unique, batches)
    return [
        paired(Figure(f"{name}, beside {peer}", keys, "keys/s", sizes, least), work, call, rounds)
        for peer, call in peers.items()
    ]


def _each(function: Callable[[Any], object], batches: list[Any]) -> Work:
    """Calls it for every batch and drops the results, so that memory is not measured."""

    def work() -> None:
        for batch in batches:
            function(batch)

    return work


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
