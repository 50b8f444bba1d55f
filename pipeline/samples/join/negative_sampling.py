"""Which negatives are emitted: those of a share of the join keys, chosen by hash, the same for every feedback."""

from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Bools


@dataclass(frozen=True)
class NegativeSampling:
    """`rate` is `samples.negative_rate`."""

    rate: float

    @property
    def ids_below(self) -> int | None:
        """A negative is emitted if the second half of its join key's hash is below this; None: all are."""
        return None if self.rate >= 1 else int(self.rate * 2**64)

    def sampled(self, rows: np.ndarray) -> Bools:
        """[n] whether the negatives of HELD rows are emitted."""
        below = self.ids_below
        return np.ones(len(rows), np.bool_) if below is None else np.asarray(rows["id"][:, 1] < np.uint64(below))
