"""Evidence of a change: Page's CUSUM (1954) of e-values, many at once.

An e-value is a positive number whose mean, given everything before, is at most 1 as long as nothing has changed. W_t =
max(W_{t-1}, 1) e_t is an e-detector (Shin, Ramdas and Rinaldo 2024, "E-detectors: a nonparametric framework for
sequential change detection", definition 2.2 and section 2.3). W_t never exceeds the Shiryaev-Roberts sum R_t =
(R_{t-1} + 1) e_t, and R_t - t is a supermartingale; stopped where R reaches A or after n steps, its mean is at most 0,
so

    P(some W_t >= A within n steps) <= n / A

whatever the distribution is (the argument of Ville's inequality). With k detectors of threshold A = k * m a false alarm
comes after m steps at the earliest, on average.
"""

import numpy as np

from pipeline.arrays.types import Float64s


class Evidence:
    """k CUSUMs in logarithms. Not thread-safe."""

    def __init__(self, detectors: int, false_alarm_every: float) -> None:
        """`false_alarm_every`: the mean number of steps before a false alarm of any of them, at least."""
        self.threshold = float(np.log(detectors * false_alarm_every))
        self.log = np.zeros(detectors)
        """[k] log W."""

    def add(self, log_e: Float64s) -> None:
        """Multiply by the e-values of one step: [k] logarithms. Evidence is cut at three thresholds: it has to end."""
        self.log = np.minimum(np.maximum(self.log, 0) + log_e, 3 * self.threshold)

    @property
    def strength(self) -> float:
        """The strongest evidence as a multiple of the threshold; an alarm from 1 on."""
        return float(self.log.max() / self.threshold)
