"""Scores as terms that add up over samples, and their running sums: what several kinds of scores have in common."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from pipeline.arrays.types import Bools, Float64s


@dataclass(frozen=True)
class TermScores:
    """What n samples, or n lists, add to sums; a subclass names its terms."""

    terms: Float64s
    """[terms, n]"""

    def __len__(self) -> int:
        return int(self.terms.shape[1])

    def where(self, mask: Bools) -> Self:
        """Those of some."""
        return replace(self, terms=self.terms.compress(mask, axis=1))


class TermSums:
    """Running sums of terms; a subclass computes metrics from them. Not thread-safe."""

    TERMS: ClassVar[int]

    def __init__(self) -> None:
        self.samples = 0
        self.sums = np.zeros(self.TERMS)

    def add(self, scores: TermScores) -> None:
        """Count n scored samples."""
        self.samples += len(scores)
        self.sums += scores.terms.sum(axis=1)

    def state(self) -> dict[str, Any]:
        return {"samples": self.samples, "sums": self.sums.tolist()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        sums = cls()
        sums.samples, sums.sums = state["samples"], np.array(state["sums"])
        return sums
