"""The cost of each delta: bytes, rows by precision, time. Counted where deltas are written, once each."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from pipeline.process.clock import Clock
from pipeline.telemetry import metrics
from pipeline.versions.deltas.delta import Delta

_MAX_BITS = 32


@contextmanager
def measure_publication(delta: Delta, size_bytes: int, clock: Clock) -> Iterator[None]:
    """Count a delta of `size_bytes` that the body of the `with` statement writes, unless the body raises."""
    began_at_s = clock.monotonic_s()
    yield
    shard, level = str(delta.shard), delta.level
    metrics.PUBLISH_SECONDS.labels(shard, level).observe(clock.monotonic_s() - began_at_s)
    metrics.PUBLISHED_BYTES.labels(shard, level).inc(size_bytes)
    for bits, rows in _rows_by_bits(delta).items():
        metrics.PUBLISHED_ROWS.labels(shard, level, str(bits)).inc(rows)


def _rows_by_bits(delta: Delta) -> dict[int, int]:
    """The number of rows at each precision; tombstones count as 0 bits."""
    counts = np.zeros(_MAX_BITS + 1, np.int64)
    for change in delta.fields.values():
        counts += np.bincount(change.bits, minlength=_MAX_BITS + 1)
        counts[0] += len(change.removed)
    return {int(bits): int(counts[bits]) for bits in np.flatnonzero(counts)}
