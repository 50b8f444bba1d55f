"""Schedules of the learning rate: its share by the number of samples seen. Pure functions, float64."""

import bisect
import math

from pipeline.configuration.model.optimizers import Constant, Cosine, Exponential, Piecewise

Schedule = Constant | Cosine | Exponential | Piecewise


def share_of(schedule: Schedule, samples: int) -> float:
    """The share of the learning rate for the step whose last sample is sample number `samples`, at least 1.

    >>> cosine = Cosine(kind="cosine", decay_samples=100, lowest=0.5)
    >>> [round(share_of(cosine, samples), 6) for samples in (0, 50, 100, 200)]
    [1.0, 0.75, 0.5, 0.5]
    >>> [share_of(Exponential(kind="exponential", halve_samples=10, lowest=0.2), samples) for samples in (0, 20, 90)]
    [1.0, 0.25, 0.2]
    >>> [share_of(Piecewise(kind="piecewise", boundaries=(5, 9), factors=(0.5, 0.1)), samples) for samples in (4, 5, 9)]
    [1.0, 0.5, 0.1]
    >>> [share_of(Constant(warm_up_samples=8), samples) for samples in (2, 8, 9)]
    [0.25, 1.0, 1.0]
    """
    share = _decayed(schedule, samples)
    if schedule.warm_up_samples and samples < schedule.warm_up_samples:
        return share * samples / schedule.warm_up_samples
    return share


def constant(schedule: Schedule) -> bool:
    """Whether the share is always 1."""
    return isinstance(schedule, Constant) and not schedule.warm_up_samples


def _decayed(schedule: Schedule, samples: int) -> float:
    if isinstance(schedule, Cosine):
        wave = 0.5 * (1 + math.cos(math.pi * min(samples / schedule.decay_samples, 1.0)))
        return schedule.lowest + (1 - schedule.lowest) * wave
    if isinstance(schedule, Exponential):
        return float(max(schedule.lowest, 0.5 ** (samples / schedule.halve_samples)))
    if isinstance(schedule, Piecewise):
        return (1.0, *schedule.factors)[bisect.bisect_right(schedule.boundaries, samples)]
    return 1.0
