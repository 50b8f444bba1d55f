"""What recall searches: a scan of all items by the product of both vectors, whose best a scorer may order anew."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.arrays.types import Bools, Float32s, UInt64s
from pipeline.recall.best_items import best_items
from pipeline.recall.item_rows import ItemRows
from pipeline.recall.scan_index import ScanIndex
from pipeline.serving.items.attributes import Allowed
from pipeline.serving.items.embedder import EmbeddedItems
from pipeline.serving.items.scorer import Scorer
from pipeline.telemetry import metrics


@dataclass(frozen=True)
class Users:
    """n users of a request, by one version."""

    vectors: Float32s
    """[n, dim]"""
    parts: Float32s | None
    """[n, c] what they decide of the scores; None without a scorer."""


Found = tuple[list[UInt64s], list[Float32s]]
"""For each user, the items found, best first, and their scores."""


class ItemIndex(Protocol):
    """Searches may run beside each other, and beside `change`; what that returns needs a lock."""

    dim: int

    @property
    def outgrown(self) -> bool:
        """Whether so many items have changed that the index should be built anew."""

    def change(self, removed: UInt64s, put: EmbeddedItems | None) -> Callable[[], None]:
        """Prepare a change, the next one; calling the result makes it.

        Items `removed` are removed, unknown ids have no effect; then items are inserted or replaced. One that is to
        have length 1 and has none is withheld: it would seem to suit every user. Its vector is all zeros, or its square
        exceeded 32 bits before it was normalised.
        """

    def find(self, users: Users, scorer: Scorer | None, k: int, allowed: Allowed) -> Found:
        """The best k of the items that may be found, for each user; of equal scores the lower id. Raises ModelError."""

    def __len__(self) -> int:
        """How many items can be found."""


class ScannedItems:
    """All items by the largest products; with a scorer, the best of `scored` such items by its predictions."""

    def __init__(self, dim: int, attributes: int, *, normalised: bool, scored: int) -> None:
        """An empty index; the vectors of `normalised` towers have length 1."""
        self.dim, self._normalised, self._scored = dim, normalised, scored
        self._scan, self._parts = ScanIndex(dim, attributes=attributes), ItemRows()

    @property
    def outgrown(self) -> bool:
        return False

    def put(self, items: EmbeddedItems) -> None:
        """Insert or replace items of an index that is not searched yet."""
        self.change(np.empty(0, np.uint64), items)()

    def change(self, removed: UInt64s, put: EmbeddedItems | None) -> Callable[[], None]:
        kept, lost = with_direction(put, self._normalised)
        gone = np.concatenate([removed, lost])
        if kept is not None and kept.parts is not None:
            self._parts.reserve(*kept.parts.shape)

        def make() -> None:
            self._scan.remove(gone)
            self._parts.remove(gone)
            if kept is not None:
                self._scan.put(kept.ids, kept.vectors, kept.attributes)
            if kept is not None and kept.parts is not None:
                self._parts.put(kept.ids, kept.parts)

        return make

    def find(self, users: Users, scorer: Scorer | None, k: int, allowed: Allowed) -> Found:
        n, wanted = len(users.vectors), k if scorer is None else max(k, self._scored)
        count = min(wanted, max(1, len(self)))
        found = self._scan.search(users.vectors, count, filters=[allowed.filter] * n, excluded=[allowed.excluded] * n)
        metrics.RECALL_SURVIVORS.inc(int(found.survivors.sum()))
        metrics.RECALL_PASSES.inc(int(found.passes.sum()))
        counts = found.counts.tolist()
        ids = [row[:count] for row, count in zip(found.ids, counts, strict=True)]
        if scorer is None or users.parts is None:
            return ids, [row[:count] for row, count in zip(found.scores, counts, strict=True)]
        pairs = zip(users.parts, ids, strict=True)
        return joined(best_of(some, scorer.scores(user, self._parts.take(some)), k) for user, some in pairs)

    def __len__(self) -> int:
        return len(self._scan)


def with_direction(items: EmbeddedItems | None, normalised: bool) -> tuple[EmbeddedItems | None, UInt64s]:
    """The items whose vectors do not have length 0, if they are to have length 1; and the ids of the others."""
    if items is None or not normalised:
        return items, np.empty(0, np.uint64)
    kept: Bools = np.asarray(items.vectors.any(axis=1), np.bool_)
    return items if kept.all() else items.take(kept), items.ids[~kept]


def best_of(ids: UInt64s, scores: Float32s, k: int) -> tuple[UInt64s, Float32s]:
    """The best k of items [n] by scores [n], and theirs; an item without a finite one is left out, and counted."""
    finite = np.isfinite(scores)
    if not finite.all():
        metrics.RECALL_UNSCORED.inc(int((~finite).sum()))
        ids, scores = ids[finite], scores[finite]
    best = best_items(scores, ids, k)
    return ids[best], scores[best]


def joined(found: Iterable[tuple[UInt64s, Float32s]]) -> Found:
    """What was found for each user."""
    pairs = list(found)
    return [ids for ids, _ in pairs], [scores for _, scores in pairs]
