"""Scores of the order of a list: the share of the fine top k in the coarse top m, and clicks in the top k.

Of the samples of a list, such as the impressions and candidates of a request, by outputs before they are learned from:

    top share   samples of the fine ranker's top k that are in the label's own top m, over k: how much of the fine
                ranker's choice passes a cascade that hands it m samples
    hit rate    clicks in the label's own top k, over all clicks: HR@k

A list of m samples or fewer has no top m to miss, and one of k or fewer no top k: they do not count. Of equal outputs,
the earlier sample in the log comes first.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.arrays.types import Bools, Float64s, Int64s
from pipeline.configuration.model.labels import TopLists
from pipeline.trainer.validation.term_sums import TermScores


@dataclass(frozen=True)
class OrderMetrics:
    """The order of some lists. A value that is not defined for them is None."""

    lists: int
    """How many have more samples than k."""
    top_share: float | None
    """Mean over lists."""
    hit_rate: float | None
    """Over clicks."""


class OrderScores(TermScores):
    """[5, L] 1 if it is longer than k; 1 if it is longer than m and there is a fine ranker, top share; clicks, hits."""


class OrderSums:
    """Running sums from which `OrderMetrics` are computed. Not thread-safe."""

    def __init__(self) -> None:
        self.sums = np.zeros(5)
        """Of `OrderScores.terms`."""

    def add(self, scores: OrderScores) -> None:
        """Count scored lists, one after the other: the sums do not depend on how many are counted at once."""
        self.sums = np.cumsum(np.column_stack([self.sums, scores.terms]), axis=1)[:, -1].copy()

    def metrics(self) -> OrderMetrics:
        lists, compared, share, clicks, hits = (float(total) for total in self.sums)
        return OrderMetrics(
            lists=int(lists),
            top_share=share / compared if compared > 0 else None,
            hit_rate=hits / clicks if clicks > 0 else None,
        )

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums.tolist()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "OrderSums":
        sums = cls()
        sums.sums = np.array(state["sums"], np.float64)
        return sums


def order_scores(numbers: Int64s, own: Float64s, fine: Float64s | None, clicked: Bools, top: TopLists) -> OrderScores:
    """The scores of L lists.

    Args:
        numbers: [n] the list of each sample, from 0 to L - 1; none is empty.
        own: [n] outputs of the label.
        fine: [n] those of its teacher; None without one.
        clicked: [n] bool.
        top: k and m.

    >>> numbers, own, fine = np.zeros(4, int), np.array([1.0, 4, 3, 2]), np.array([9.0, 8, 7, 6])
    >>> clicked = np.array([True, False, True, False])
    >>> order_scores(numbers, own, fine, clicked, TopLists(k=2, m=3)).terms.ravel().tolist()
    [1.0, 1.0, 0.5, 2.0, 1.0]
    """
    sizes = np.bincount(numbers)
    own_ranks, chosen = _ranks(numbers, own), sizes > top.k
    counted = [clicked, clicked & (own_ranks < top.k)]
    clicks, hits = (np.bincount(numbers, weights) * chosen for weights in counted)
    compared, share = np.zeros(len(sizes)), np.zeros(len(sizes))
    if fine is not None:
        compared = (sizes > top.m).astype(np.float64)
        both = (_ranks(numbers, fine) < top.k) & (own_ranks < top.m)
        share = np.bincount(numbers, both) * compared / top.k
    return OrderScores(np.stack([chosen.astype(np.float64), compared, share, clicks, hits]))


def _ranks(numbers: Int64s, scores: Float64s) -> Int64s:
    """[n] the place of each sample in its list by descending score, from 0."""
    order = np.lexsort((-scores, numbers))
    ordered = numbers[order]
    ranks = np.empty(len(numbers), np.int64)
    ranks[order] = np.arange(len(numbers)) - np.searchsorted(ordered, ordered)
    return ranks
