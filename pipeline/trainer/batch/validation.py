"""Progressive validation: every sample is scored before it is learned from.

Log loss, normalized entropy, calibration and AUC, over all samples and per hour of log time. A sample counts in the
hour that log time has reached when the sample is read, so hours close in order and a replay gives the same hours.
All sums are signed: a compensation reverses its fake negative.
"""

import base64
import json
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Float64s, Int64s
from pipeline.errors import DamagedError

Floats = npt.NDArray[np.floating[Any]]

HOUR_MS = 3_600_000
HOURS = 168
"""Closed hours that are stored: a week."""
BINS = 2**14
LOGIT_LIMIT = 16.0
"""The histograms for AUC reach from minus this to this; logits outside count in the outermost bins."""
FORMAT = 1
WITHOUT_POSITIVE_HINT = "a second event of a key, such as a purchase after the click, is a duplicate_click"
"""What an operator may find if a label has no positive."""


@dataclass(frozen=True)
class Metrics:
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


@dataclass(frozen=True)
class _Scores:
    """What n samples add to `ScoreSums`."""

    terms: Float64s
    """[4, n] weight as positive, weight as negative, loss, predicted clicks."""
    bins: Int64s
    """[n] the logit's bin in the histogram."""


class ScoreSums:
    """Running sums from which `Metrics` are computed. Not thread-safe."""

    def __init__(self) -> None:
        self.samples = 0
        self.sums = np.zeros(4)
        """Of `_Scores.terms`."""
        self.positives = np.zeros(BINS)
        self.negatives = np.zeros(BINS)

    def add(self, scores: _Scores) -> None:
        """Count n scored samples."""
        self.samples += len(scores.bins)
        self.sums += scores.terms.sum(axis=1)
        self.positives += np.bincount(scores.bins, scores.terms[0], BINS)
        self.negatives += np.bincount(scores.bins, scores.terms[1], BINS)

    def metrics(self) -> Metrics:
        positives, negatives, loss, predicted = (float(total) for total in self.sums)
        weight = positives + negatives
        log_loss = loss / weight if weight > 0 else None
        both = positives > 0 and negatives > 0
        entropy = _entropy(positives / weight) if both else None
        return Metrics(
            samples=self.samples,
            positives=positives,
            negatives=negatives,
            log_loss=log_loss,
            normalized_entropy=log_loss / entropy if log_loss is not None and entropy else None,
            calibration=predicted / positives if positives > 0 else None,
            auc=self._auc(positives, negatives) if both else None,
        )

    def state(self) -> dict[str, Any]:
        bins = [_packed(self.positives), _packed(self.negatives)]
        return {"samples": self.samples, "sums": self.sums.tolist(), "bins": bins}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "ScoreSums":
        sums = cls()
        sums.samples, sums.sums = state["samples"], np.array(state["sums"])
        sums.positives, sums.negatives = (_unpacked(bins) for bins in state["bins"])
        return sums

    def _auc(self, positives: float, negatives: float) -> float:
        """The probability that a positive scores above a negative; within one bin it counts as a half."""
        below = np.cumsum(self.negatives) - self.negatives
        # Not `@`: BLAS starts threads, which spin for longer than this takes.
        return float((self.positives * (below + self.negatives / 2)).sum()) / (positives * negatives)


class LabelValidation:
    """Progressive validation of one label of one shard. Not thread-safe."""

    def __init__(self) -> None:
        self._total, self._hour = ScoreSums(), ScoreSums()
        self._now_ms: int | None = None
        self._closed: deque[tuple[int, Metrics]] = deque(maxlen=HOURS)

    def score(self, logits: Floats, positive: Floats, negative: Floats, at_ms: Int64s) -> None:
        """Count n samples in log order, scored before the step that learns from them.

        Args:
            logits: [n] finite, as serving would use them.
            positive: [n] weight as a positive.
            negative: [n] weight as a negative, below zero for a reversed one (`Targets.scored_negative`).
            at_ms: [n] each sample's time.
        """
        if not len(logits):
            return
        scores = _scores(*(np.asarray(values, np.float64) for values in (logits, positive, negative)))
        self._total.add(scores)
        start_ms = int(at_ms[0]) if self._now_ms is None else self._now_ms
        hours = np.maximum.accumulate(np.maximum(at_ms, start_ms)) // HOUR_MS
        for hour in np.unique(hours):
            self._open(int(hour) * HOUR_MS)
            inside = hours == hour
            self._hour.add(_Scores(scores.terms.compress(inside, axis=1), scores.bins[inside]))
        self._now_ms = max(start_ms, int(at_ms.max()))

    def report(self) -> dict[str, Any]:
        """Metrics of all samples and of the hours, earliest first, the open one last; plain values for JSON."""
        hours = list(self._closed)
        if self._now_ms is not None:
            hours.append((_hour_of(self._now_ms), self._hour.metrics()))
        rows = [{"start_ms": start_ms, **asdict(metrics)} for start_ms, metrics in hours]
        return {"total": asdict(self._total.metrics()), "windows": rows}

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs, plain values for JSON; the same for the same samples in batches of any size."""
        return {
            "format": FORMAT,
            "now_ms": self._now_ms,
            "total": self._total.state(),
            "window": self._hour.state(),
            "closed": [[start_ms, asdict(metrics)] for start_ms, metrics in self._closed],
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "LabelValidation":
        """The validation of `state`, to the last bit. Raises DamagedError."""
        if state.get("format") != FORMAT:
            raise DamagedError(f"validation state has format {state.get('format')}, this release reads {FORMAT}")
        validation = cls()
        validation._now_ms = state["now_ms"]
        validation._total, validation._hour = ScoreSums.restore(state["total"]), ScoreSums.restore(state["window"])
        validation._closed.extend((start_ms, Metrics(**metrics)) for start_ms, metrics in state["closed"])
        return validation

    def to_bytes(self) -> bytes:
        return json.dumps(self.state(), separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, state: bytes) -> "LabelValidation":
        """The validation of `to_bytes`. Raises DamagedError."""
        try:
            document = json.loads(state)
        except ValueError as failure:
            raise DamagedError(f"validation state of {len(state)} bytes is not JSON: {failure}") from None
        return cls.restore(document)

    def _open(self, start_ms: int) -> None:
        """Close the open hour if `start_ms` begins another."""
        if self._now_ms is not None and _hour_of(self._now_ms) != start_ms:
            self._closed.append((_hour_of(self._now_ms), self._hour.metrics()))
            self._hour = ScoreSums()
        self._now_ms = start_ms if self._now_ms is None else max(self._now_ms, start_ms)


def _hour_of(at_ms: int) -> int:
    return at_ms // HOUR_MS * HOUR_MS


def _scores(logits: Float64s, positive: Float64s, negative: Float64s) -> _Scores:
    loss_of_zero = np.logaddexp(0, logits)
    loss_of_one = loss_of_zero - logits
    losses = positive * loss_of_one + negative * loss_of_zero
    predicted = (positive + negative) * np.exp(-loss_of_one)
    bins = np.clip((logits + LOGIT_LIMIT) * (BINS / (2 * LOGIT_LIMIT)), 0, BINS - 1).astype(np.int64)
    return _Scores(np.stack([positive, negative, losses, predicted]), bins)


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


def labels_without_positive(reports: Mapping[str, Any], after_samples: int | None) -> list[str]:
    """The labels that had no positive in at least `after_samples` samples; none if that is off.

    Such a label may be one that no click can carry, as that of a second event after the click.

    Args:
        reports: by label, the report of its `LabelValidation`.
        after_samples: `train.positive_within_samples`.

    >>> labels_without_positive({"bought": {"total": {"samples": 9, "positives": 0.0}}}, 9)
    ['bought']
    """
    totals = {label: report["total"] for label, report in reports.items()}
    return [
        label
        for label, total in totals.items()
        if after_samples is not None and total["samples"] >= after_samples and not total["positives"] > 0
    ]
