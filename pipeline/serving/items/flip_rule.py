"""The rule by which the items are embedded anew: how many of the best items of recent users a newer version keeps.

The overlap of two versions is measured for the users of recent requests, on a sample of the items, and on what orders
them in answers: the products, or the scorer. The ids of items are hashes, so the first items by id are a random sample.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Float32s, Int64s
from pipeline.features.plan import Features
from pipeline.serving.items.embedder import EmbeddedItems
from pipeline.serving.items.item_index import Users
from pipeline.serving.items.scorer import Scorer
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica

SAMPLED_PIECES = 4
"""Pieces of the catalogue whose items are the sample, 8,192 items."""
_USERS = 64
_BEST = 100


@dataclass(frozen=True)
class Sampled:
    """Recent users and a sample of the items, by one version."""

    users: Users
    items: EmbeddedItems
    scorer: Scorer | None

    def scores(self, rows: Int64s, scored: int | None) -> Float32s:
        """[users, k] float32: what orders the items at `rows` [k] in answers.

        The scorer, if there is one, orders those with the `scored` largest products, or all: the others have minus
        infinity. Raises ModelError.
        """
        items = self.items.take(rows)
        products = self.users.vectors @ items.vectors.T
        if self.scorer is None or self.users.parts is None or items.parts is None:
            return products
        chosen = _best(products, min(scored or len(rows), len(rows)))
        found = np.full_like(products, -np.inf)
        for row, user, places in zip(found, self.users.parts, chosen, strict=True):
            row[places] = self.scorer.scores(user, items.parts[places])
        return found


class FlipRule:
    """Many threads may call `remember`, one all others."""

    def __init__(self, bound: float, new_tower: Callable[[], Predictor]) -> None:
        """Skip versions whose overlap is at least `bound`, none if it is 1. `new_tower` builds a user tower."""
        self._bound = bound
        self._tower = None if bound >= 1 else new_tower()
        self._lock = threading.Lock()
        self._recent: deque[Features] = deque(maxlen=_USERS)
        self.overlap: float | None = None
        """The overlap measured last."""

    def remember(self, features: Features) -> None:
        """Use the first user of a request, as read for tower and scorer, as a probe."""
        if self._tower is None or not len(features.dense):
            return
        user = features.take(np.zeros(1, np.int64))
        with self._lock:
            self._recent.append(user)

    @property
    def users(self) -> Features | None:
        """The users of the last requests, at most 64; None before the first, and if no version is skipped."""
        with self._lock:
            recent = list(self._recent)
        return Features.concatenated(recent) if recent else None

    def embed(self, dense: bytes, users: Features, replica: Replica) -> Float32s:
        """[n, dim] float32: what the tower reads of users, by these weights. Call it inside `replica.reading`."""
        assert self._tower is not None, "no version is skipped"
        self._tower.load(dense)
        return self._tower.predict(users, replica.lookup)

    def skips(self, before: Sampled, after: Sampled, scored: int | None) -> bool:
        """Measure the overlap of answers; returns whether it is enough for the version before to stay in use.

        `scored`: how many items of the sample the scorer orders, at least as many as are compared; all if None. Raises
        ModelError.
        """
        _, old, new = np.intersect1d(before.items.ids, after.items.ids, assume_unique=True, return_indices=True)
        if not len(old):
            return False
        wanted = None if scored is None else max(scored, compared(len(old)))
        self.overlap = overlap(before.scores(old, wanted), after.scores(new, wanted))
        return self.overlap >= self._bound


def compared(items: int) -> int:
    """How many of the best items of a sample are compared: the first 100 or a tenth."""
    return max(1, min(_BEST, items // 10))


def overlap(before: Float32s, after: Float32s) -> float:
    """The share of the best items that two tables of scores have in common, of the first 100 or a tenth of the items.

    Args:
        before: [users, items] float32, at least one of both.
        after: the same users and items by another version.

    >>> overlap(np.array([[1, 2, 3]], np.float32), np.array([[9, 2, 3]], np.float32))
    0.0
    """
    k = compared(before.shape[1])
    pairs = zip(_best(before, k), _best(after, k), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs]))


def _best(scores: Float32s, k: int) -> Int64s:
    """[users, k] int64: the places of the best items, in any order."""
    found: Int64s = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return found
