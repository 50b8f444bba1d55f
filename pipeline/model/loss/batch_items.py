"""The items that a softmax over a batch chooses from. NumPy only."""

from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Bools, Float32s, Int32s, UInt64s


@dataclass(frozen=True)
class BatchItems:
    """The items of the n samples of a batch, in order, then m that were drawn.

    Attributes:
        items: [n + m] number of the item, equal for equal items; -1: none.
        log_q: [n + m] logarithm of how often the item is expected among them; zeros without correction.
        first: [n + m] whether none before it is the same item.
    """

    items: Int32s
    log_q: Float32s
    first: Bools

    @classmethod
    def of(cls, keys: UInt64s, log_q: Float32s, drawn: Bools | None = None) -> "BatchItems":
        """Items by their keys [n + m]; `drawn` [n + m] is false for those that are none.

        >>> BatchItems.of(np.uint64([7, 9, 7]), np.zeros(3, np.float32)).first.tolist()
        [True, True, False]
        """
        _, places, numbers = np.unique(keys, return_index=True, return_inverse=True)
        first = np.zeros(len(keys), np.bool_)
        first[places] = True
        items = numbers.astype(np.int32)
        if drawn is not None:
            items, first = np.where(drawn, items, -1).astype(np.int32), first & drawn
        return cls(items, log_q, first)

    @classmethod
    def trial(cls, n: int) -> "BatchItems":
        """As many different items as `n`."""
        return cls(np.arange(n, dtype=np.int32), np.zeros(n, np.float32), np.ones(n, np.bool_))

    def __len__(self) -> int:
        return len(self.items)

    def part(self, start: int, stop: int) -> "BatchItems":
        """Those of the samples from `start` to `stop`, of samples without drawn items."""
        items = self.items[start:stop]
        first = np.zeros(len(items), np.bool_)
        first[np.unique(items, return_index=True)[1]] = True
        return BatchItems(items, self.log_q[start:stop], first)
