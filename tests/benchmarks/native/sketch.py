"""Sketch: keys counted per second on one core compared with an exact `Counter`, and false admissions with their bound.

Streams of Zipf (1.05 over a million values) and of uniform keys, hashed. A false admission is a key whose estimate
reaches the threshold while its count does not; its peer is the bound of a plain count-min sketch, the
rate of a plain one of the same size is among the sizes.
"""

import sys
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.admission.sketch import CountingSketch
from pipeline.arrays.keys import hash_column
from tests.benchmarks.harness.paired import main, paired
from tests.benchmarks.harness.report import Figure, Result
from tests.benchmarks.load.stream import VALUES, zipf
from tests.support.reference.count_min import bound, estimates_of, plain_estimates

DEPTH, THRESHOLD = 4, 5
BATCH = 53_248


def measure(quick: bool, rounds: int) -> list[Result]:
    keys = BATCH if quick else 20 * BATCH
    random = np.random.default_rng(1)
    streams = {"zipf": zipf(random, keys), "uniform": random.integers(0, VALUES, keys)}
    results = []
    for name, values in streams.items():
        hashed = hash_column(pa.array(values), 1)
        for width in (1 << 16, 1 << 20):
            results.append(_speed(name, hashed, width, rounds))
        results += [_false_admissions(name, hashed, width) for width in (1 << 19, 1 << 20)]
    return results


def _speed(name: str, keys: np.ndarray, width: int, rounds: int) -> Result:
    sizes = {"keys": len(keys), "width": width, "depth": DEPTH, "bytes": 4 * width * DEPTH, "threads": 1}
    sketch = CountingSketch(width, DEPTH, seed=1)
    batches, ready = np.split(keys, len(keys) // BATCH), keys.tolist()
    figure = Figure(f"sketch: add, {name} keys, beside Counter", len(keys), "keys/s", sizes)
    return paired(figure, lambda: [sketch.add(batch) for batch in batches], lambda: Counter(ready), rounds)


def _false_admissions(name: str, keys: np.ndarray, width: int) -> Result:
    sketch = CountingSketch(width, DEPTH, seed=1)
    sketch.add(keys)
    distinct, counts = np.unique(keys, return_counts=True)
    below = counts < THRESHOLD
    most = bound(counts[below], len(keys), THRESHOLD, width, DEPTH)
    plain = float((plain_estimates(keys, distinct[below], width, DEPTH, 1) >= THRESHOLD).mean())
    measured = float((estimates_of(sketch, distinct[below]) >= THRESHOLD).mean())
    sizes: dict[str, Any] = {
        "keys": len(keys),
        "below": int(below.sum()),
        "threshold": THRESHOLD,
        "width": width,
        "depth": DEPTH,
    }
    sizes |= {"plain count-min": plain, "bound": most}
    figure = Figure(f"sketch: false admissions, {name} keys", measured, "of keys", sizes, most=most)
    return Result(figure, [measured], [most])


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
