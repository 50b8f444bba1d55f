"""The rule by which the items are embedded anew: how many of the best items of recent users a newer version keeps.

The overlap of two versions is measured for the users of recent requests, on a sample of the items. The ids of
items are hashes, so the first items by id are a random sample.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Float32s, Int64s, UInt64s
from pipeline.features.plan import Features
from pipeline.serving.items.embedder import EmbeddedItems
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica

SAMPLED_PIECES = 4
"""Pieces of the catalogue whose items are the sample, 8,192 items."""
_USERS = 64
_BEST = 100


@dataclass(frozen=True)
class Sample:
    """The vectors of some items."""

    ids: UInt64s
    """[n]"""
    vectors: Float32s
    """[n, dim]"""

    @classmethod
    def of(cls, pieces: Iterable[EmbeddedItems]) -> "Sample":
        """The items of all pieces."""
        ids, vectors = [np.empty(0, np.uint64)], [np.empty((0, 0), np.float32)]
        for items in pieces:
            ids.append(items.ids)
            vectors.append(items.vectors)
        return cls(np.concatenate(ids), np.concatenate(vectors[1:] or vectors))


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
        """Use the first user of a request as a probe."""
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
        """[n, dim] float32: users by the tower with these weights. Call it inside `replica.reading`."""
        assert self._tower is not None, "no version is skipped"
        self._tower.load(dense)
        return self._tower.predict(users, replica.lookup)

    def skips(self, users: Float32s, items: Sample, new_users: Float32s, new_items: Sample) -> bool:
        """Measure the overlap; returns whether it is enough for the vectors in use to stay."""
        _, old, new = np.intersect1d(items.ids, new_items.ids, assume_unique=True, return_indices=True)
        if not len(old):
            return False
        self.overlap = overlap(users @ items.vectors[old].T, new_users @ new_items.vectors[new].T)
        return self.overlap >= self._bound


def overlap(before: Float32s, after: Float32s) -> float:
    """The share of the best items that two tables of scores have in common, of the first 100 or a tenth of the items.

    Args:
        before: [users, items] float32, at least one of both.
        after: the same users and items by another version.

    >>> overlap(np.array([[1, 2, 3]], np.float32), np.array([[9, 2, 3]], np.float32))
    0.0
    """
    k = max(1, min(_BEST, before.shape[1] // 10))
    pairs = zip(_best(before, k), _best(after, k), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs]))


def _best(scores: Float32s, k: int) -> Int64s:
    """[users, k] int64: the places of the best items, in any order."""
    found: Int64s = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return found
