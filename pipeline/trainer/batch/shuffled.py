"""Batches of shuffled samples: each window of the samples log is cut first, then permuted, then divided into batches.

A window is cut like a batch of its size (`batches`), so it depends only on the log. Its permutation follows from a seed
and the number of samples before it: no restart, cut of records or read ahead changes a byte. The position moves when
the last batch of a window was learned, and not before.
"""

from collections import deque
from dataclasses import replace

import numpy as np
import pyarrow as pa

from pipeline.arrays.splitmix import GAMMA, mix
from pipeline.arrays.types import Int64s
from pipeline.trainer.batch.batches import NO_END, Batch, BatchReader, SamplePosition


class ShuffledReader:
    """Reads the windows of `windows`, whose batch size is that of a window. Not thread-safe."""

    def __init__(self, windows: BatchReader, start: SamplePosition, samples: int, batch_size: int, seed: int) -> None:
        """`windows` begins at `start`, behind so many `samples`."""
        self._windows, self._start, self._samples = windows, start, samples
        self._batch_size, self._seed = batch_size, seed
        self._ready: deque[Batch] = deque()

    def next(self, stop_offset: int) -> Batch | None:
        """The next batch of a window, of records below `stop_offset` if it is the first. Raises as `BatchReader`."""
        if not self._ready:
            passed = self._windows.passed  # what is behind it, samples in quarantine too, is in no window
            self._start = self._start if passed is None else max(self._start, passed)
            window = self._windows.next(stop_offset)
            if window is None:
                return None
            self._ready.extend(self._divided(window))
            self._start, self._samples = window.end, self._samples + len(window)
        return self._ready.popleft()

    def wait(self, wait_ms: int) -> int:
        """As `BatchReader.wait`."""
        return NO_END if self._ready else self._windows.wait(wait_ms)

    @property
    def passed(self) -> SamplePosition | None:
        """As `BatchReader.passed`."""
        return None if self._ready else self._windows.passed

    def _divided(self, window: Batch) -> list[Batch]:
        order = permutation(len(window), self._seed, self._samples)
        samples, at_ms = window.samples.take(pa.array(order)), window.at_ms[order]
        batches = []
        for start in range(0, len(window), self._batch_size):
            part = slice(start, start + self._batch_size)
            rows = samples.slice(start, self._batch_size)
            batches.append(Batch(rows, at_ms[part], self._start, start, closes_window=False))
        return [*batches[:-1], replace(batches[-1], end=window.end, closes_window=True)]


def permutation(count: int, seed: int, before: int) -> Int64s:
    """[count] the order of the samples of a window behind `before` samples.

    >>> sorted(permutation(5, 1, before=100).tolist())
    [0, 1, 2, 3, 4]
    """
    word = mix(mix(np.array([seed], np.uint64) + GAMMA) + np.array([before], np.uint64) * GAMMA)
    order: Int64s = np.argsort(mix(word + np.arange(1, count + 1, dtype=np.uint64) * GAMMA), kind="stable")
    return order
