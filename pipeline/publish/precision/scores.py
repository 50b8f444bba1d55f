"""Scores of serving compared with those of the trainer, for labels with a logistic loss. Pure functions of arrays."""

import numpy as np

from pipeline.arrays.types import Float64s

DECILES = 10


def sigmoid(logits: Float64s) -> Float64s:
    """Probabilities of log-odds, of any shape."""
    probabilities: Float64s = np.exp(-np.logaddexp(0, -logits))
    return probabilities


def entropy(logits: Float64s) -> Float64s:
    """The log loss of predictions that are right, by their log-odds, of any shape."""
    entropies: Float64s = np.logaddexp(0, logits) - sigmoid(logits) * logits
    return entropies


def divergence(own: Float64s, served: Float64s) -> Float64s:
    """KL(own ‖ served) of Bernoulli distributions with these log-odds, of any shape."""
    divergences: Float64s = sigmoid(own) * (own - served) + np.logaddexp(0, served) - np.logaddexp(0, own)
    return divergences


def ks_distance(own: Float64s, served: Float64s) -> float:
    """The Kolmogorov–Smirnov distance of two samples of scores, [n] and [m]: the largest gap of their distributions.

    >>> ks_distance(np.array([1.0, 2.0]), np.array([2.0, 1.0])), ks_distance(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    (0.0, 1.0)
    """
    at = np.concatenate([own, served])
    below = [np.searchsorted(np.sort(each), at, side="right") / len(each) for each in (own, served)]
    return float(np.abs(below[0] - below[1]).max())


def calibration_by_decile(own: Float64s, served: Float64s) -> list[float]:
    """Mean probability of serving over that of the trainer, by decile of the trainer's, lowest first.

    Args:
        own: [n] probabilities above 0; with fewer than ten samples there are fewer deciles.
        served: [n] those of serving for the same samples.

    >>> calibration_by_decile(np.array([0.2, 0.4]), np.array([0.1, 0.4]))
    [0.5, 1.0]
    """
    order = np.argsort(own, kind="stable")
    parts = np.array_split(order, min(DECILES, len(own)))
    return [float(served[part].sum() / own[part].sum()) for part in parts]
