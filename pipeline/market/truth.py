"""How well probabilities do against what really happened, and how well the true ones do: the floor for any model."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pipeline.market.market import Truth

Floats = npt.NDArray[np.float64]


def normalized_entropy(probability: Floats, clicked: npt.NDArray[np.bool_]) -> float:
    """Log loss over the log loss of always predicting the mean; NaN without clicks or without anything else.

    He et al. 2014, "Practical lessons from predicting clicks on ads at Facebook", equation 1.

    >>> normalized_entropy(np.array([0.5, 0.5]), np.array([True, False]))
    1.0
    """
    rate = float(np.mean(clicked)) if len(clicked) else 0.0
    if not 0 < rate < 1:
        return float("nan")
    p = np.clip(probability, 1e-9, 1 - 1e-9)
    loss = -float(np.mean(np.where(clicked, np.log(p), np.log1p(-p))))
    return loss / -float(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))


def truth_ne(truths: Iterable[Truth]) -> list[float]:
    """NE of the true probabilities over genuine impressions, one number per hour."""
    return [normalized_entropy(t.probability[~t.bot], t.clicked[~t.bot]) for t in truths]
