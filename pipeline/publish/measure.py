"""What each delta cost: bytes, rows by precision, time. Counted where deltas are written, once each."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from pipeline.process.clock import Clock
from pipeline.telemetry import metrics
from pipeline.versions.deltas.delta import Delta

_MOST_BITS = 32


@contextmanager
def publishing(delta: Delta, size_bytes: int, clock: Clock) -> Iterator[None]:
    """Count a delta of `size_bytes` that is written inside; one that could not be written is not counted."""
    began_at_s = clock.monotonic_s()
    yield
    shard, level = str(delta.shard), delta.level
    metrics.PUBLISH_SECONDS.labels(shard, level).observe(clock.monotonic_s() - began_at_s)
    metrics.PUBLISHED_BYTES.labels(shard, level).inc(size_bytes)
    for bits, rows in rows_by_bits(delta).items():
        metrics.PUBLISHED_ROWS.labels(shard, level, str(bits)).inc(rows)


def rows_by_bits(delta: Delta) -> dict[int, int]:
    """How many rows a delta carries at each precision; removals count as 0 bits."""
    counts = np.zeros(_MOST_BITS + 1, np.int64)
    for change in delta.fields.values():
        counts += np.bincount(change.bits, minlength=_MOST_BITS + 1)
        counts[0] += len(change.removed)
    return {int(bits): int(counts[bits]) for bits in np.flatnonzero(counts)}
