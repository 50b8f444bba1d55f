"""What recall searches: the vectors and attributes of items, and what they decide of the scorer's inputs."""

from collections.abc import Sequence

import numpy as np

from pipeline.arrays.types import Float32s, UInt64s
from pipeline.recall.scan_index import Found, ScanIndex
from pipeline.serving.items.attributes import Allowed
from pipeline.serving.items.scorer import ItemInputs


class ItemIndex:
    """Searches may run beside each other and beside changes; `inputs` and changes need a lock."""

    def __init__(self, dim: int, attributes: int, normalised: bool) -> None:
        """An empty index; the vectors of `normalised` towers have length 1."""
        self.dim, self._normalised = dim, normalised
        self._scan, self._inputs = ScanIndex(dim, attributes=attributes), ItemInputs()

    def put(self, ids: UInt64s, vectors: Float32s, attributes: UInt64s, inputs: Float32s | None) -> None:
        """Insert or replace n items, with what they decide of the scorer's inputs, [n, d], if there is one.

        An item that is to have length 1 and has none is withheld: it would seem to suit every user. Its vector is all
        zeros, or its square exceeded 32 bits before it was normalised.
        """
        lost = ~vectors.any(axis=1) if self._normalised else np.zeros(len(ids), np.bool_)
        self._scan.remove(ids[lost])
        self._scan.put(ids[~lost], vectors[~lost], attributes[~lost])
        if inputs is not None:
            self._inputs.put(ids, inputs)

    def remove(self, ids: UInt64s) -> None:
        """Remove items; unknown ids have no effect."""
        self._scan.remove(ids)
        self._inputs.remove(ids)

    def search(self, users: Float32s, k: int, allowed: Allowed) -> Found:
        """The k items with the largest products for each of the users' vectors, [n, dim]; all if there are fewer."""
        n, count = len(users), min(k, max(1, len(self)))
        return self._scan.search(users, count, filters=[allowed.filter] * n, excluded=[allowed.excluded] * n)

    def inputs(self, ids: Sequence[int]) -> Float32s:
        """[n, d] what items that are there decide of the scorer's inputs."""
        return self._inputs.take(ids)

    def __len__(self) -> int:
        """How many items can be found."""
        return len(self._scan)
