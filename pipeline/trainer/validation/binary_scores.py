"""Scores of a logistic label: sums over samples from which log loss, normalized entropy, calibration and AUC follow."""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.arrays.types import Bools, Float64s, Int64s

BINS = 2**14
LOGIT_LIMIT = 16.0
"""The histograms for AUC reach from minus this to this; logits outside count in the outermost bins."""


@dataclass(frozen=True)
class BinaryMetrics:
    """The quality of the predictions of some samples. A value that is not defined for them is None."""

    samples: int
    positives: float
    """Weight of the positives."""
    negatives: float
    """Weight of the negatives; one sampled at rate r counts 1/r."""
    log_loss: float | None
    """Mean, in nats."""
    normalized_entropy: float | None
    """Log loss over the entropy of the mean label (He et al. 2014, "Practical lessons from predicting clicks on ads",
    section 2.1)."""
    calibration: float | None
    """Predicted clicks over clicks."""
    auc: float | None

    @classmethod
    def of(cls, samples: int, sums: Sequence[float], auc: float | None = None) -> "BinaryMetrics":
        """Those of [4] sums of `BinaryScores.terms`."""
        positives, negatives, loss, predicted = (float(total) for total in sums)
        weight = positives + negatives
        log_loss = loss / weight if weight > 0 else None
        entropy = _entropy(positives / weight) if positives > 0 and negatives > 0 else None
        return cls(
            samples=samples,
            positives=positives,
            negatives=negatives,
            log_loss=log_loss,
            normalized_entropy=log_loss / entropy if log_loss is not None and entropy else None,
            calibration=predicted / positives if positives > 0 else None,
            auc=auc,
        )


@dataclass(frozen=True)
class BinaryScores:
    """What n samples add to `BinarySums`."""

    terms: Float64s
    """[4, n] weight as positive, weight as negative, loss, predicted clicks."""
    bins: Int64s
    """[n] the logit's bin in the histogram."""
    loss_of_zero: Float64s
    """[n] the loss as a negative of weight 1."""

    def __len__(self) -> int:
        return len(self.bins)

    @cached_property
    def sums(self) -> Float64s:
        """[4] of `terms`; computed once for the sums that count them."""
        return np.asarray(self.terms.sum(axis=1), np.float64)

    @cached_property
    def histograms(self) -> tuple[Float64s, Float64s]:
        """([BINS], [BINS]) weights as positive and as negative by bin; computed once likewise."""
        positives, negatives = (np.bincount(self.bins, weights, BINS) for weights in self.terms[:2])
        return np.asarray(positives, np.float64), np.asarray(negatives, np.float64)

    def where(self, mask: Bools) -> "BinaryScores":
        """Those of some samples."""
        return BinaryScores(self.terms.compress(mask, axis=1), self.bins[mask], self.loss_of_zero[mask])


class BinarySums:
    """Running sums from which `BinaryMetrics` are computed. Not thread-safe."""

    def __init__(self) -> None:
        self.samples = 0
        self.sums = np.zeros(4)
        """Of `BinaryScores.terms`."""
        self.positives = np.zeros(BINS)
        self.negatives = np.zeros(BINS)

    def add(self, scores: BinaryScores) -> None:
        """Count n scored samples."""
        self.samples += len(scores.bins)
        self.sums += scores.sums
        positives, negatives = scores.histograms
        self.positives += positives
        self.negatives += negatives

    def metrics(self) -> BinaryMetrics:
        positives, negatives = float(self.sums[0]), float(self.sums[1])
        auc = self._auc(positives, negatives) if positives > 0 and negatives > 0 else None
        return BinaryMetrics.of(self.samples, self.sums.tolist(), auc)

    def state(self) -> dict[str, Any]:
        bins = [_packed(self.positives), _packed(self.negatives)]
        return {"samples": self.samples, "sums": self.sums.tolist(), "bins": bins}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "BinarySums":
        sums = cls()
        sums.samples, sums.sums = state["samples"], np.array(state["sums"])
        sums.positives, sums.negatives = (_unpacked(bins) for bins in state["bins"])
        return sums

    def _auc(self, positives: float, negatives: float) -> float:
        """The probability that a positive scores above a negative; within one bin it counts as a half."""
        below = np.cumsum(self.negatives) - self.negatives
        # Not `@`: BLAS starts threads, which spin for longer than this takes.
        return float((self.positives * (below + self.negatives / 2)).sum()) / (positives * negatives)


def binary_scores(logits: Float64s, positive: Float64s, negative: Float64s) -> BinaryScores:
    """What n samples add.

    Args:
        logits: [n] finite, as serving would use them.
        positive: [n] weight as a positive.
        negative: [n] weight as a negative, below zero for a reversed one (`Targets.scored_negative`).
    """
    loss_of_zero = np.logaddexp(0, logits)
    loss_of_one = loss_of_zero - logits
    losses = positive * loss_of_one + negative * loss_of_zero
    predicted = (positive + negative) * np.exp(-loss_of_one)
    bins = np.clip((logits + LOGIT_LIMIT) * (BINS / (2 * LOGIT_LIMIT)), 0, BINS - 1).astype(np.int64)
    return BinaryScores(np.stack([positive, negative, losses, predicted]), bins, loss_of_zero)


def _entropy(p: float) -> float:
    """Of a label that is 1 with probability p, in nats.

    >>> round(_entropy(0.5), 6)
    0.693147
    """
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)))


def _packed(bins: Float64s) -> str:
    return base64.b64encode(zlib.compress(bins.astype("<f8").tobytes(), 1)).decode()


def _unpacked(text: str) -> Float64s:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f8").astype(np.float64)
