"""The second signal: calibration by source. Bad traffic is usually a source, not an hour.

Under the model a label is 1 with odds exp(z + o), where o is the log-odds offset of its source in the past. Against it
stand changes of the odds, in both directions and of several sizes. The e-value of a sample is the likelihood ratio of
z + o + t + d to z + o + t, with the tolerance t > 0 and the size d > 0: its mean is 1 if the odds are off by t, and
smaller if they are off by less. It is averaged over the samples of a source, so single predictions may be wrong as long
as their mean is right. The tolerance grows where a source has had few positives, by two standard errors of o.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Float64s, Int64s

UP, DOWN = (0.15, 0.4, 1.0, 2.0), (0.15, 0.4, 1.0)
"""Sizes of the changes of log-odds that are looked for."""
DETECTORS = len(UP) + len(DOWN)
_PRIOR = 50.0
"""Positives of a source as predicted, with which its offset begins."""


@dataclass(frozen=True)
class GateSamples:
    """n samples of one label, before they are learned from.

    Attributes:
        logits: [n] of the label as it was sampled.
        labels: [n] in 0..1.
        sources: [n] bucket of the sample's source.
    """

    logits: Float64s
    labels: Float64s
    sources: Int64s

    def __len__(self) -> int:
        return len(self.labels)


def offsets(positives: Float64s, predicted: Float64s) -> tuple[Float64s, Float64s]:
    """By source the offset of its log-odds, and the standard error of that.

    >>> offset, error = offsets(np.array([0.0, 150.0]), np.array([0.0, 50.0]))
    >>> offset.round(2).tolist(), error.round(2).tolist()
    ([0.0, 0.69], [0.14, 0.07])
    """
    return np.log((positives + _PRIOR) / (predicted + _PRIOR)), 1 / np.sqrt(positives + _PRIOR)


def log_e_values(samples: GateSamples, offset: Float64s, tolerance: Float64s) -> Float64s:
    """[DETECTORS, buckets] sums of the logarithms of the e-values of n samples.

    Args:
        samples: to test.
        offset: [buckets] of the log-odds in the past.
        tolerance: [buckets] of the log-odds, above 0.
    """
    buckets = len(offset)
    centre, allowed = samples.logits + offset[samples.sources], tolerance[samples.sources]
    rows = []
    for sign, sizes in ((1.0, UP), (-1.0, DOWN)):
        at_most = centre + sign * allowed
        weight = np.logaddexp(0, at_most)
        for size in sizes:
            log_ratio = sign * size * samples.labels - (np.logaddexp(0, at_most + sign * size) - weight)
            rows.append(np.bincount(samples.sources, log_ratio, buckets))
    return np.stack(rows)
