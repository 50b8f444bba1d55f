"""The gate of one shard: a state per version that depends on the samples log alone.

Two independent signals are tested on samples before they are learned from: the model's gain over a lagging baseline
(`gain`) and calibration by source (`calibration`). Each has a stated rate of false alarms (`evidence`). One signal
makes the state `uncertain`, both, or twice the evidence of one, `corrupted`. The state is healthy again once neither
has had half of its evidence for `gate.recover_samples`: what lasts longer than `gate.memory_samples` is the new normal.
"""

from typing import Any, Literal

import numpy as np

from pipeline.arrays.types import Float64s
from pipeline.configuration.model.gate import GateConfig
from pipeline.errors import DamagedError
from pipeline.formats.container import Container, Kind, encode_container
from pipeline.trainer.validation.gate import calibration, gain
from pipeline.trainer.validation.gate.calibration import GateSamples
from pipeline.trainer.validation.gate.evidence import Evidence
from pipeline.trainer.validation.gate.lagging import LaggingSums

GateState = Literal["healthy", "uncertain", "corrupted"]
STATES: tuple[GateState, ...] = ("healthy", "uncertain", "corrupted")
GATE = "gate"
"""The name of the state of `Gate` in a version."""
_KIND = Kind(b"gate", "restore an earlier version")
_POSITIVES, _PREDICTED, _COUNT, _GAIN, _SQUARES, _GAINED = range(6)
_SUMMED = ("label", "source", "buckets", "lag_samples")
"""Settings that decide what the stored sums are of."""
_FALSE_OBJECTIONS = 0.01
_CORRUPTED = 2.0
"""How many times its threshold one signal needs alone."""


def state_in(stored: bytes) -> GateState:
    """The state in `Gate.to_bytes`. Raises DamagedError."""
    container = Container.of(stored, _KIND, name="gate")
    with container.parsing():
        return STATES[STATES.index(container.header["state"])]


def without_evidence(stored: bytes) -> bool:
    """Whether the state in `Gate.to_bytes` is healthy and no signal has half of its evidence. Raises DamagedError."""
    container = Container.of(stored, _KIND, name="gate")
    with container.parsing():
        return bool(container.header["state"] == "healthy" and container.header["quiet_samples"] > 0)


class Gate:
    """The tests of one label and their state. Not thread-safe."""

    def __init__(self, config: GateConfig) -> None:
        self._config, self._buckets = config, config.groups
        self._past = LaggingSums(6, self._buckets, config.lag_samples, config.memory_samples)
        every = config.false_alarm_every_samples
        self._calibration = Evidence(calibration.DETECTORS * (self._buckets + 1), 2 * every)
        self._gain = Evidence(gain.DETECTORS, 2 * every)
        self.state: GateState = "healthy"
        self._quiet_samples = 0
        self.worst_source: int | None = None
        """The bucket with the strongest evidence of the last alarm by calibration."""

    def score(self, samples: GateSamples) -> None:
        """Test n samples, which were not learned from yet, and count them."""
        if not len(samples):
            return
        tested = self._past.samples >= self._config.warm_up_samples
        if tested:
            self._calibration.add(self._calibration_evidence(samples).ravel())
        gained = self._gains(samples) if self._past.samples else None
        if gained is not None and self._past.sums[_GAINED].sum() >= self._config.warm_up_samples / 2:
            total, squares, count = (float(self._past.sums[row].sum()) for row in (_GAIN, _SQUARES, _GAINED))
            least = gain.least_gain(total, squares, count, self._config.gain_tolerance)
            self._gain.add(gain.log_e_values(gained, least))
        self._count(samples, gained)
        self._move(len(samples))

    def objects(self, samples: GateSamples) -> bool:
        """Whether n samples alone show that the predictions in `samples` are not calibrated. Counts nothing.

        If no source is off by more than its tolerance, an objection has a probability of 1 % at most: the product of
        independent e-values is one, and the mean of an e-value is at most 1 (Markov's inequality, k at once). Without
        samples there is no evidence and so no objection, which shows nothing of the predictions.
        """
        evidence = self._calibration_evidence(samples)
        return bool(evidence.max() >= np.log(evidence.size / _FALSE_OBJECTIONS))

    def report(self) -> dict[str, Any]:
        """The state and the evidence, for people and for JSON."""
        return {
            "state": self.state,
            "samples": self._past.samples,
            "calibration": round(self._calibration.strength, 3),
            "gain": round(self._gain.strength, 3),
            "worst_source": self.worst_source,
        }

    def to_bytes(self) -> bytes:
        """Everything `load` needs."""
        header = {
            "settings": self._summed(),
            "state": self.state,
            "quiet_samples": self._quiet_samples,
            "worst_source": self.worst_source,
            "open": self._past.open,
            "samples": self._past.samples,
        }
        arrays = (self._past.blocks, self._calibration.log, self._gain.log)
        return encode_container(_KIND, header, {"sums": np.concatenate([each.ravel() for each in arrays])})

    def load(self, stored: bytes) -> None:
        """Continue from `to_bytes`, to the bit; with another label, source or lag begin anew. Raises DamagedError."""
        container = Container.of(stored, _KIND, name="gate")
        with container.parsing():
            header = container.header
            if header["settings"] != self._summed():
                return
            self._read_arrays(container.array("sums", "<f8"))
            self.state, self._quiet_samples = header["state"], header["quiet_samples"]
            self.worst_source = header["worst_source"]
            self._past.open, self._past.samples = header["open"], header["samples"]

    def _summed(self) -> dict[str, Any]:
        return {name: getattr(self._config, name) for name in _SUMMED}

    def _read_arrays(self, sums: Float64s) -> None:
        ends = np.cumsum([self._past.blocks.size, self._calibration.log.size, self._gain.log.size])
        if len(sums) != ends[-1]:
            raise DamagedError(f"gate has {len(sums)} numbers, wanted {ends[-1]}. hint: {_KIND.fix}")
        blocks, calibrated, gained = np.split(sums, ends[:-1])
        self._past.blocks = blocks.reshape(self._past.blocks.shape)
        self._calibration.log, self._gain.log = calibrated, gained

    def _calibration_evidence(self, samples: GateSamples) -> Float64s:
        offset, error = calibration.offsets(self._past.sums[_POSITIVES], self._past.sums[_PREDICTED])
        by_source = calibration.log_e_values(samples, offset, self._config.tolerance + 2 * error)
        # All sources together: what happens to all of them is a smaller change of more samples.
        allowed = np.full(self._buckets, self._config.total_tolerance)
        of_all = calibration.log_e_values(samples, offset, allowed).sum(axis=1, keepdims=True)
        return np.concatenate([by_source, of_all], axis=1)

    def _gains(self, samples: GateSamples) -> Float64s:
        baseline = gain.baseline_logits(self._past.sums[_POSITIVES], self._past.sums[_COUNT])
        return gain.gains(samples, baseline)

    def _count(self, samples: GateSamples, gained: Float64s | None) -> None:
        rows = [samples.labels, 1 / (1 + np.exp(-samples.logits)), np.ones(len(samples))]
        if gained is not None:
            rows += [gained, gained * gained, np.ones(len(samples))]
        sums = np.zeros((6, self._buckets))
        for number, row in enumerate(rows):
            sums[number] = np.bincount(samples.sources, row, self._buckets)
        self._past.add(sums, len(samples))

    def _move(self, count: int) -> None:
        """The state after a batch of `count` samples."""
        strengths = self._calibration.strength, self._gain.strength
        alarms = sum(strength >= 1 for strength in strengths)
        if strengths[0] >= 1:
            by_source = self._calibration.log.reshape(calibration.DETECTORS, -1)[:, :-1]
            self.worst_source = int(by_source.max(axis=0).argmax())
        self._quiet_samples = 0 if max(strengths) >= 1 / 2 else self._quiet_samples + count
        if alarms == 2 or max(strengths) >= _CORRUPTED:
            self.state = "corrupted"
        elif alarms and self.state == "healthy":
            self.state = "uncertain"
        elif self._quiet_samples >= self._config.recover_samples:
            self.state = "healthy"
