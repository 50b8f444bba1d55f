"""How far predictions are from the market's truth, hour by hour.

Every impression is scored against its exact click probability, which only a simulation knows: that is the normalized
entropy to be expected over all ways the dice could fall, so lines do not jump with an hour's luck.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays.block import Int64s
from pipeline.market.market import MarketHour

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exam:
    """The genuine impressions of one hour, each once, with their truth; n rows.

    Attributes:
        rows: raw impression columns.
        at_ms: [n] impression times.
        probability: [n] exact click probabilities.
        clicked: [n] whether there was a click.
    """

    rows: pa.RecordBatch
    at_ms: Int64s
    probability: Floats
    clicked: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, made: MarketHour) -> "Exam":
        """What was made and arrived in this hour, without bots, doubles and misdated events."""
        ids, first = np.unique(made.impressions.column("id").to_numpy(), return_index=True)
        order = np.argsort(made.truth.id)
        place = order[np.minimum(np.searchsorted(made.truth.id, ids, sorter=order), len(order) - 1)]
        known = (made.truth.id[place] == ids) & ~made.truth.bot[place]
        place, rows = place[known], made.impressions.take(pa.array(first[known]))
        at_ms = rows.column("at").to_numpy()
        return cls(rows, at_ms, made.truth.probability[place], made.truth.clicked[place])


def expected_ne(predicted: Floats, probability: Floats) -> float:
    """Cross-entropy of predictions under the true probabilities, over that of always predicting the mean.

    The expectation of He et al. 2014, equation 1, over the clicks. Nothing is below the truth's own.

    >>> p = np.array([0.1, 0.3])
    >>> expected_ne(p, p) < expected_ne(np.array([0.2, 0.2]), p)
    True
    >>> round(expected_ne(np.array([0.2, 0.2]), p), 12)
    1.0
    """
    base = np.full(len(probability), probability.mean())
    return _cross_entropy(predicted, probability) / _cross_entropy(base, probability)


def _cross_entropy(predicted: Floats, probability: Floats) -> float:
    q = np.clip(predicted, 1e-9, 1 - 1e-9)
    return -float(np.mean(probability * np.log(q) + (1 - probability) * np.log1p(-q)))
