"""A stream of scored samples with known truth, for tests and benchmarks of the gate: clean, or with one fault.

The log-odds of a click are the sum of a feature column, of the other columns, of a base rate that drifts with the day,
and of an error of the model per source. The model knows all but the error and some noise, and follows the drift late.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.trainer.validation.gate.calibration import GateSamples

DAY = 1_000_000
"""Samples of a day."""
_DRIFT_LAG = 5_000


@dataclass
class ScoredStream:
    """Batches of one seed. `fault` may be changed between two batches.

    Attributes:
        fault: `flipped` (10 % of labels), `dead` (the column is null, and its rows are zeros), `bots` (2 % of samples
            are clicks of source 0), or None.
    """

    seed: int
    buckets: int = 128
    fault: str | None = None

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._errors = self._random.normal(0, 0.05, self.buckets)
        share = 1 / (1 + np.arange(self.buckets)) ** 0.8
        self._ends = np.cumsum(share / share.sum())
        self.samples = 0

    def batch(self, n: int) -> GateSamples:
        """The next n samples."""
        random = self._random
        sources = np.minimum(np.searchsorted(self._ends, random.random(n)), self.buckets - 1)
        column, others = random.normal(0.3, 0.6, n), random.normal(-2.3, 0.7, n)
        at = self.samples + np.arange(n)
        truth = column + others + self._drift(at) + self._errors[sources]
        known = others + self._drift(at - _DRIFT_LAG) + random.normal(0, 0.1, n)
        logits = known if self.fault == "dead" else known + column
        labels = (random.random(n) < 1 / (1 + np.exp(-truth))).astype(np.float64)
        if self.fault == "flipped":
            labels = np.where(random.random(n) < 0.1, 1 - labels, labels)
        if self.fault == "bots":
            bots = random.random(n) < 0.02
            labels[bots], sources[bots] = 1.0, 0
        self.samples += n
        return GateSamples(logits, labels, sources)

    @staticmethod
    def _drift(at: np.ndarray) -> np.ndarray:
        return 0.3 * np.sin(2 * np.pi * at / DAY)
