"""The first signal: what the model gains over a lagging baseline, in log loss on the same samples.

The baseline predicts the rate that the sample's source had in the past. Its gain D = loss of the baseline - loss of the
model is compared with the mean gain of the past, m: a model that learned wrong labels, or that lacks an input, gains
less. A version of the model itself would be no baseline for that: it lacks the same input.

The e-value of a sample is 1 + b (m' - D), with D cut to +-4, m' the least gain that is tolerated and a bet b: its mean
is at most 1 as long as the mean gain is at least m', whatever the distribution (Waudby-Smith and Ramdas 2024,
"Estimating means of bounded random variables by betting", section 3).
"""

import numpy as np

from pipeline.arrays.types import Float64s
from pipeline.trainer.validation.gate.calibration import GateSamples

LIMIT = 4.0
BETS = (0.03, 0.08, 0.2)
"""Each below 1 / 4.5: 1 + b (m' - D) stays positive, because D <= 4 and m' >= -1 / 2 (`log_e_values`)."""
DETECTORS = len(BETS)
_PRIOR = 200.0
"""Samples of a source at the rate of all, with which its rate begins."""


def baseline_logits(positives: Float64s, counts: Float64s) -> Float64s:
    """By source the log-odds of its rate: [buckets] sums of labels and numbers of samples in the past.

    >>> baseline_logits(np.array([100.0, 0.0]), np.array([200.0, 0.0])).tolist()
    [0.0, 0.0]
    """
    rate = min(max(float(positives.sum() / max(counts.sum(), 1.0)), 1e-6), 1 - 1e-6)
    odds = (positives + _PRIOR * rate) / (counts - positives + _PRIOR * (1 - rate))
    return np.asarray(np.log(odds), np.float64)


def gains(samples: GateSamples, baseline: Float64s) -> Float64s:
    """[n] loss of the baseline - loss of the model, cut to +-LIMIT; `baseline`: [buckets] log-odds."""
    base = baseline[samples.sources]
    difference = samples.labels * (samples.logits - base) - np.logaddexp(0, samples.logits) + np.logaddexp(0, base)
    return np.clip(difference, -LIMIT, LIMIT)


def least_gain(total: float, squares: float, count: float, tolerance: float) -> float:
    """The least mean gain that is tolerated: the past mean, less a share of it and four standard errors.

    >>> round(least_gain(20.0, 400.0, 1_000.0, 0.5), 3)
    -0.07
    """
    mean = total / count
    spread = max(squares / count - mean * mean, 0.0)
    return float(mean - tolerance * abs(mean) - 4 * np.sqrt(spread / count))


def log_e_values(gain: Float64s, least: float) -> Float64s:
    """[DETECTORS] sums of the logarithms of the e-values of n gains."""
    shortfall = max(least, -LIMIT / 8) - gain
    return np.array([np.log1p(bet * shortfall).sum() for bet in BETS])
