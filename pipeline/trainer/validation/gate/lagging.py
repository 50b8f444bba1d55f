"""Sums over past samples that leave out the newest: a change must not move what it is compared with at once.

Samples are added to an open block. A block that has `lag` samples waits until the next one is full, and only then
counts; older blocks fade with the time constant `memory`. Batches are not cut, so sums are a function of the log and
the batch size.
"""

import numpy as np

from pipeline.arrays.types import Float64s


class LaggingSums:
    """[k, buckets] sums. Not thread-safe."""

    def __init__(self, kinds: int, buckets: int, lag: int, memory: int) -> None:
        self._lag, self._fading = lag, float(np.exp(-lag / memory))
        self.blocks = np.zeros((3, kinds, buckets))
        """Those that count, the one that waits, the open one."""
        self.open = self.samples = 0
        """Samples of the open block, and of those that count, without fading."""

    @property
    def sums(self) -> Float64s:
        """[k, buckets], of the samples that count."""
        past: Float64s = self.blocks[0]
        return past

    def add(self, sums: Float64s, samples: int) -> None:
        """Add the sums of `samples` samples."""
        self.blocks[2] += sums
        self.open += samples
        if self.open < self._lag:
            return
        waited = bool(self.blocks[1].any())
        self.blocks[0] = self.blocks[0] * self._fading + self.blocks[1]
        self.blocks[1], self.blocks[2] = self.blocks[2], 0.0
        self.samples += self._lag if waited else 0
        self.open = 0
