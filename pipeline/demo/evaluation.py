"""Evaluates predictions against the market's exact click probabilities, hour by hour.

The exact probabilities give the expected normalized entropy (NE) over all possible click outcomes, free of the sampling
noise of the clicks that happened.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays.block import Int64s
from pipeline.market.market import MarketHour

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EvaluationSet:
    """The n genuine impressions of one hour, each once, with their ground truth.

    Attributes:
        rows: raw impression columns.
        at_ms: [n] impression times.
        probability: [n] exact click probabilities.
        clicked: [n] whether the impression was clicked.
    """

    rows: pa.RecordBatch
    at_ms: Int64s
    probability: Floats
    clicked: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, hour: MarketHour) -> "EvaluationSet":
        """The impressions created in the hour that arrive in it, without bots, duplicates and misdated events."""
        ids, first = np.unique(hour.impressions.column("id").to_numpy(), return_index=True)
        order = np.argsort(hour.truth.id)
        index = order[np.minimum(np.searchsorted(hour.truth.id, ids, sorter=order), len(order) - 1)]
        genuine = (hour.truth.id[index] == ids) & ~hour.truth.bot[index]
        index, rows = index[genuine], hour.impressions.take(pa.array(first[genuine]))
        at_ms = rows.column("at").to_numpy()
        return cls(rows, at_ms, hour.truth.probability[index], hour.truth.clicked[index])


@dataclass
class HourlyScores:
    """Scores of one model by hour.

    Attributes:
        name: name of the model.
        ne: expected NE over the hour's genuine impressions.
        clicks_ne: NE on the clicks that happened.
    """

    name: str
    ne: dict[int, float] = field(default_factory=dict)
    clicks_ne: dict[int, float] = field(default_factory=dict)

    def add(self, hour: int, predicted: Floats, examples: EvaluationSet) -> None:
        """Score the predictions of one hour, [n]."""
        self.ne[hour] = expected_ne(predicted, examples.probability)
        self.clicks_ne[hour] = normalized_entropy(predicted, examples.clicked)


def expected_ne(predicted: Floats, probability: Floats) -> float:
    """Cross-entropy of predictions under the exact probabilities, over that of always predicting the mean.

    The expectation over the clicks of He et al. 2014, equation 1; minimal when the exact probabilities are predicted.

    >>> p = np.array([0.1, 0.3])
    >>> expected_ne(p, p) < expected_ne(np.array([0.2, 0.2]), p)
    True
    >>> round(expected_ne(np.array([0.2, 0.2]), p), 12)
    1.0
    """
    mean = np.full(len(probability), probability.mean())
    return _cross_entropy(predicted, probability) / _cross_entropy(mean, probability)


def normalized_entropy(predicted: Floats, clicked: npt.NDArray[np.bool_]) -> float:
    """Log loss over the log loss of always predicting the mean; NaN if all outcomes are equal or there are none.

    He et al. 2014, "Practical lessons from predicting clicks on ads at Facebook", equation 1.

    >>> normalized_entropy(np.array([0.5, 0.5]), np.array([True, False]))
    1.0
    """
    rate = float(np.mean(clicked)) if len(clicked) else 0.0
    return expected_ne(predicted, clicked.astype(np.float64)) if 0 < rate < 1 else float("nan")


def _cross_entropy(predicted: Floats, probability: Floats) -> float:
    q = np.clip(predicted, 1e-9, 1 - 1e-9)
    return -float(np.mean(probability * np.log(q) + (1 - probability) * np.log1p(-q)))
