"""Scores of a label that is not logistic: sums over samples from which mean loss, calibration and RMSE follow.

A sample has weight `positive` with its value, and weight `negative`, below zero, with the earlier value that it
reverses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipeline.arrays.types import Float64s
from pipeline.trainer.validation.term_sums import TermScores, TermSums


@dataclass(frozen=True)
class NumericMetrics:
    """The quality of the predictions of some samples. A value that is not defined for them is None."""

    samples: int
    weight: float
    """Of the samples; a reversed one counts less than nothing."""
    positives: float
    """Weight of the samples whose value is not 0."""
    observed: float
    """Weighted sum of the values."""
    loss: float | None
    """Mean, without the label's weight in the objective."""
    calibration: float | None
    """Predicted sum over observed sum."""
    rmse: float | None
    """Root of the mean squared difference of prediction and value."""

    @classmethod
    def of(cls, samples: int, sums: Sequence[float]) -> "NumericMetrics":
        """Those of [6] sums of `NumericScores.terms`."""
        weight, positives, observed, predicted, squares, loss = (float(total) for total in sums)
        return cls(
            samples=samples,
            weight=weight,
            positives=positives,
            observed=observed,
            loss=loss / weight if weight > 0 else None,
            calibration=predicted / observed if observed != 0 else None,
            rmse=float(np.sqrt(max(squares, 0.0) / weight)) if weight > 0 else None,
        )

    def without_predictions(self) -> "NumericMetrics":
        """Without what compares predictions with values: the outputs of a loss over lists are no predictions."""
        return replace(self, calibration=None, rmse=None)


class NumericScores(TermScores):
    """[6, n] weight, weight of values other than 0, weighted value, weighted prediction, squared error, loss."""


class NumericSums(TermSums):
    """Those of `NumericScores`."""

    TERMS = 6

    def metrics(self) -> NumericMetrics:
        return NumericMetrics.of(self.samples, self.sums.tolist())


class ListSums(NumericSums):
    """Those of a loss over lists, whose outputs are no predictions of values: without calibration and RMSE."""

    def metrics(self) -> NumericMetrics:
        return super().metrics().without_predictions()


@dataclass(frozen=True)
class NumericBatch:
    """n samples of a label, [n] float64 each; weights and values as in `Targets`.

    Attributes:
        outputs: of the network.
        losses: weighted, as they add up to the loss of the batch.
    """

    outputs: Float64s
    losses: Float64s
    positive: Float64s
    negative: Float64s
    value: Float64s
    earlier: Float64s


def numeric_scores(batch: NumericBatch, link: Literal["exp", "identity"]) -> NumericScores:
    """What the samples add; `link` makes an output a prediction.

    >>> one, no = np.ones(1), np.zeros(1)
    >>> sums = NumericSums()
    >>> sums.add(numeric_scores(NumericBatch(3 * one, one, one, no, 2 * one, no), "identity"))
    >>> sums.metrics().calibration, sums.metrics().rmse
    (1.5, 1.0)
    """
    predicted = np.exp(batch.outputs) if link == "exp" else batch.outputs
    terms = sum(
        np.stack([w, w * (y != 0), w * y, w * predicted, w * (predicted - y) ** 2])
        for w, y in ((batch.positive, batch.value), (batch.negative, batch.earlier))
    )
    return NumericScores(np.concatenate([terms, batch.losses[None]]))
