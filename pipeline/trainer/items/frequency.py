"""How frequent items are, from the distance between their occurrences, in fixed memory.

For each occurrence of an item x at log position t (the number of samples before it), in each of two hash tables with a
hash function h of its own:

    gap[h(x)] ← (1 − r) · gap[h(x)] + r · (t − last[h(x)]),   last[h(x)] ← t

and x has the share 1 / max gap[h(x)] of the samples: the larger gap is the one with fewer collisions (Yi et al. 2019,
"Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", algorithms 2 and 3; there t counts
batches). With c distances seen, r = max(α, 1 / c): their mean until it has 1/α of them, so that the estimate of a new
item does not start from that of no item. Before there is a distance, the gap is t + 1. Occurrences are counted by
`native/batch/frequency`.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import require_array
from pipeline.arrays.splitmix import GAMMA, mix
from pipeline.arrays.types import Float64s, Int64s, UInt64s

TABLES = 2
CELL = np.dtype([("last", "<i8"), ("gap", "<f8"), ("count", "<u4")])
"""Position of the last occurrence, estimated gap, number of occurrences up to 2³² − 1. Packed: 20 bytes."""

Cells = npt.NDArray[np.void]


class FrequencyChange(NamedTuple):
    """What a batch changes in one table: cells [u] at places [u]."""

    places: Int64s
    cells: Cells


class FrequencyEstimate:
    """The estimate of the samples so far. Not thread-safe.

    >>> frequency = FrequencyEstimate(rate=0.1, buckets=1024)
    >>> _ = frequency.advance(np.uint64([7, 8, 7, 9, 7]), first=0)
    >>> frequency.shares(np.uint64([7, 8, 6]), samples=5).round(3).tolist()
    [0.5, 0.5, 0.167]
    """

    def __init__(self, rate: float, buckets: int) -> None:
        self._rate, self._buckets = rate, buckets
        self.cells: Cells = np.zeros((TABLES, buckets), CELL)
        """[tables, buckets]"""

    def advance(self, keys: UInt64s, first: int) -> list[FrequencyChange]:
        """Count the items `keys` [n] of a batch whose first sample has position `first`; returns what changed."""
        require_array("keys", keys, np.uint64, ("n",))
        changes = []
        for cells, buckets in zip(self.cells, self._buckets_of(keys), strict=True):
            _native.advance_frequencies(cells.view(np.uint8), buckets, first, self._rate)
            places = np.unique(buckets)
            changes.append(FrequencyChange(places, cells[places]))
        return changes

    def apply(self, changes: list[FrequencyChange]) -> None:
        """Count a batch as the estimate that returned `changes` did."""
        for cells, change in zip(self.cells, changes, strict=True):
            cells[change.places] = change.cells

    def shares(self, keys: UInt64s, samples: int) -> Float64s:
        """[n] the share of the samples that each item has; `samples`: how many there were."""
        gaps = [cells["gap"][buckets] for cells, buckets in zip(self.cells, self._buckets_of(keys), strict=True)]
        largest = np.where(np.min(gaps, axis=0) > 0, np.max(gaps, axis=0), samples + 1.0)
        shares: Float64s = 1 / np.maximum(largest, 1.0)
        return shares

    def _buckets_of(self, keys: UInt64s) -> list[Int64s]:
        salts = mix(np.arange(1, TABLES + 1, dtype=np.uint64) * GAMMA)
        return [(mix(keys ^ salt) % np.uint64(self._buckets)).astype(np.int64) for salt in salts]
