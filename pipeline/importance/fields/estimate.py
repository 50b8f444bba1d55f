"""The mean of a value over samples with its confidence interval, and how losses of shuffled samples are computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Float32s, Float64s, Int64s

Losses = Callable[[Float32s], Float64s]
"""Inputs [n, columns] of n samples, always the same ones in the same order → [n] the loss of each."""
Advance = Callable[[], None]
"""Called after each evaluation of `Losses`, for progress bars."""

_NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Float64s) -> "Estimate":
        """The mean of n ≥ 2 independent values, by the normal approximation.

        >>> Estimate.of(np.array([1.0, 1.0, 1.0]))
        Estimate(mean=1.0, low=1.0, high=1.0)
        """
        return cls.around(float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5)

    @classmethod
    def around(cls, mean: float, deviation: float) -> "Estimate":
        """A mean with its standard deviation."""
        return cls(mean, mean - _NORMAL_95 * deviation, mean + _NORMAL_95 * deviation)

    @classmethod
    def mean_of(cls, estimates: Sequence["Estimate"]) -> "Estimate":
        """The mean of independent estimates, at least one.

        >>> Estimate.mean_of([Estimate(1, 0, 2), Estimate(3, 3, 3)])
        Estimate(mean=2.0, low=1.5, high=2.5)
        """
        mean = sum(each.mean for each in estimates) / len(estimates)
        half = sum((each.high - each.mean) ** 2 for each in estimates) ** 0.5 / len(estimates)
        return cls(mean, mean - half, mean + half)


def others(random: np.random.Generator, n: int) -> Int64s:
    """[n] for each of n ≥ 2 samples another one; each sample once: a random cycle through all of them."""
    cycle = random.permutation(n)
    following = np.empty(n, np.int64)
    following[cycle] = np.roll(cycle, 1)
    return following
