"""Scores of a label with two towers: sums over samples from which mean loss and recall follow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Float64s, Int32s
from pipeline.trainer.validation.term_sums import TermScores, TermSums


@dataclass(frozen=True)
class RetrievalMetrics:
    """The quality of the outputs of some samples. A value that is not defined for them is None."""

    samples: int
    positives: float
    """Weight of the positives, which alone are scored."""
    loss: float | None
    """Mean of the positives, without the label's weight in the objective."""
    recall: float | None
    """Share of the positives whose own item is among the first `towers.recall_at` items of its batch and of those drawn
    for it, each item counted once, by the output without correction. Equal outputs count against it."""

    @classmethod
    def of(cls, samples: int, terms: Sequence[float]) -> "RetrievalMetrics":
        """Those of sums of `RetrievalScores.terms`."""
        positives, loss, found = terms
        scored = positives > 0
        return cls(samples, positives, loss / positives if scored else None, found / positives if scored else None)


class RetrievalScores(TermScores):
    """[3, n] weight as a positive, weighted loss, weight if the own item is among the first."""


class RetrievalSums(TermSums):
    """Those of `RetrievalScores`."""

    TERMS = 3

    def metrics(self) -> RetrievalMetrics:
        return RetrievalMetrics.of(self.samples, self.sums.tolist())


def retrieval_scores(positive: Float64s, losses: Float64s, ranks: Int32s, recall_at: int) -> RetrievalScores:
    """What n samples add.

    Args:
        positive: [n] weight as a positive.
        losses: [n] weighted.
        ranks: [n] how many other items come before the sample's own.
        recall_at: how many items count as the first.

    >>> sums = RetrievalSums()
    >>> sums.add(retrieval_scores(np.array([1.0, 2.0, 0.0]), np.array([0.5, 1.0, 0.0]), np.array([0, 9, 0]), 5))
    >>> round(sums.metrics().loss, 3), round(sums.metrics().recall, 3)
    (0.5, 0.333)
    """
    return RetrievalScores(np.stack([positive, losses, positive * (ranks < recall_at)]))
