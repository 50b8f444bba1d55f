"""Progressive validation on matured labels: those that can no longer change.

A negative may still become a positive, so the scores of all samples favour a model that predicts what has come so far.
Here, impressions are grouped into cohorts by their time. A cohort counts once log time has passed the age at which its
labels are final (`LabelAges`), with all samples of its impressions: the first and the compensation. The prediction of
each sample is the one made when it is read, before it is learned, as in all progressive validation: that of a
compensation is made again from the same features, and the score of the negative that it takes back is taken back with
that prediction. So nothing is kept per impression, and a version holds a few sums per cohort.

For a logistic label, the same predictions are scored against labels as they were at some ages: an event that came
later has not happened yet. The positives at an age over all positives are the share that has come by then; calibration
falls to the final one as labels mature. AUC is not reported: its histograms would be held per cohort.
"""

import json
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.arrays.types import Bools, Float64s, Int64s
from pipeline.errors import DamagedError
from pipeline.trainer.validation.binary_scores import BinaryMetrics, BinaryScores
from pipeline.trainer.validation.label_ages import LabelAges, name_of_age
from pipeline.trainer.validation.numeric_scores import NumericMetrics, NumericScores
from pipeline.trainer.validation.retrieval_scores import RetrievalMetrics, RetrievalScores

FORMAT = 1
COHORTS = 48
"""Matured cohorts whose metrics are reported."""
_LOGISTIC, _LISTS, _TOWERS = "logistic", "softmax", "in_batch"
_TERMS = {_LOGISTIC: 4, _TOWERS: 3}
"""Of the scores of a label by its loss; of any other 6."""


@dataclass(frozen=True)
class LabelEvents:
    """The impressions of n samples, and the events that decided their labels.

    Attributes:
        impression_at_ms: [n]
        age_ms: [n] of the label: event minus impression; -1 without an event.
        compensation: [n] whether an earlier sample of the impression was a negative.
    """

    impression_at_ms: Int64s
    age_ms: Int64s
    compensation: Bools

    def where(self, mask: Bools) -> "LabelEvents":
        """Those of some samples."""
        return LabelEvents(self.impression_at_ms[mask], self.age_ms[mask], self.compensation[mask])


class MaturedLabels:
    """Scores of the matured labels of one output of one shard. Not thread-safe."""

    def __init__(self, loss: str, ages: LabelAges) -> None:
        self.loss, self.ages = loss, ages
        self._ages_ms = ages.ages_ms if loss == _LOGISTIC else ()
        self._sums = (1 + len(self._ages_ms), _TERMS.get(loss, 6) + 1)
        """The shape of sums: final labels, then those at each age; terms of the scores, then samples."""
        self._total = np.zeros(self._sums)
        self._open: dict[int, Float64s] = {}
        self._closed_below = 0
        """The first cohort that counts later."""
        self._cohorts: deque[tuple[int, Float64s]] = deque(maxlen=COHORTS)

    def score(self, scores: BinaryScores | NumericScores | RetrievalScores, events: LabelEvents, log_ms: int) -> None:
        """Count n samples in log order, scored before the step that learns from them.

        Args:
            scores: of the samples, of the kind that belongs to the label's loss.
            events: of the samples.
            log_ms: log time after them.
        """
        if len(scores):
            cohorts, places = np.unique(events.impression_at_ms // self.ages.cohort_ms, return_inverse=True)
            for cohort, sums in zip(cohorts.tolist(), self._sums_of(scores, events, places), strict=True):
                if cohort < self._closed_below:
                    self._total += sums
                else:
                    self._open[cohort] = self._open.get(cohort, 0) + sums
        self._close((log_ms - self.ages.final_ms) // self.ages.cohort_ms)

    def report(self) -> dict[str, Any]:
        """Metrics of all matured labels, of the cohorts that matured last, and by age; plain values for JSON."""
        cohorts = [{"start_ms": start_ms, **self._metrics(sums)} for start_ms, sums in self._cohorts]
        by_age = [
            {"age": name_of_age(age_ms), **self._metrics(sums)}
            for age_ms, sums in zip(self._ages_ms, self._total[1:], strict=True)
        ]
        return {"total": self._metrics(self._total[0]), "by_age": by_age, "cohorts": cohorts}

    def to_bytes(self) -> bytes:
        """Everything `restore` needs."""
        state = {
            "format": FORMAT,
            "loss": self.loss,
            "ages": asdict(self.ages),
            "total": self._total.tolist(),
            "open": [[cohort, sums.tolist()] for cohort, sums in sorted(self._open.items())],
            "closed_below": self._closed_below,
            "cohorts": [[start_ms, sums.tolist()] for start_ms, sums in self._cohorts],
        }
        return json.dumps(state, separators=(",", ":")).encode()

    def restore(self, state: bytes) -> None:
        """Continue from `to_bytes` to the last bit; from nothing if the ages or the loss were others.

        Raises DamagedError.
        """
        try:
            document = json.loads(state)
        except ValueError as failure:
            raise DamagedError(f"state of matured labels of {len(state)} bytes is not JSON: {failure}") from None
        if document.get("format") != FORMAT:
            got = document.get("format")
            raise DamagedError(f"state of matured labels has format {got}, this release reads {FORMAT}")
        if document["loss"] != self.loss or document["ages"] != json.loads(json.dumps(asdict(self.ages))):
            return
        self._total, self._closed_below = np.array(document["total"]), document["closed_below"]
        self._open = {cohort: np.array(sums) for cohort, sums in document["open"]}
        self._cohorts.extend((start_ms, np.array(sums)) for start_ms, sums in document["cohorts"])

    def _sums_of(
        self, scores: BinaryScores | NumericScores | RetrievalScores, events: LabelEvents, places: Int64s
    ) -> Float64s:
        """[cohorts, ages, terms] the sums by cohort; [n] `places` are those of the samples' cohorts."""
        sums = np.zeros((int(places.max()) + 1, *self._sums))
        for term, values in enumerate([*scores.terms, np.ones(len(scores))]):
            sums[:, :, term] = np.bincount(places, values, len(sums))[:, None]
        if isinstance(scores, BinaryScores) and self._ages_ms:
            # Of an event at several ages or later, its sample is another one at each of them.
            passed = np.searchsorted(self._ages_ms, events.age_ms, side="right")
            old = np.flatnonzero(passed)
            change = _before_event(scores, events.compensation, old) - scores.terms[:, old]
            width = len(self._ages_ms)
            last = places[old] * width + passed[old] - 1
            for term, values in enumerate(change):
                of_last = np.bincount(last, values, len(sums) * width).reshape(-1, width)
                sums[:, 1:, term] += np.cumsum(of_last[:, ::-1], axis=1)[:, ::-1]
        return sums

    def _close(self, below: int) -> None:
        """Count the cohorts before `below`."""
        for cohort in sorted(cohort for cohort in self._open if cohort < below):
            sums = self._open.pop(cohort)
            self._total += sums
            self._cohorts.append((cohort * self.ages.cohort_ms, sums[0]))
        self._closed_below = max(self._closed_below, below)

    def _metrics(self, sums: Float64s) -> dict[str, Any]:
        """The metrics of sums, without those that they do not decide."""
        *terms, samples = sums.tolist()
        if self.loss == _LOGISTIC:
            found = asdict(BinaryMetrics.of(int(samples), terms))
            return {name: value for name, value in found.items() if name != "auc"}
        if self.loss == _TOWERS:
            return asdict(RetrievalMetrics.of(int(samples), terms))
        metrics = NumericMetrics.of(int(samples), terms)
        return asdict(metrics.without_predictions() if self.loss == _LISTS else metrics)


def _before_event(scores: BinaryScores, compensation: Bools, rows: Int64s) -> Float64s:
    """[4, rows] the terms of samples before their event: a positive was a negative, a compensation nothing more."""
    weight = np.where(compensation[rows], 0.0, scores.terms[0, rows] + scores.terms[1, rows])
    predicted = np.where(compensation[rows], 0.0, scores.terms[3, rows])
    return np.stack([np.zeros(len(rows)), weight, weight * scores.loss_of_zero[rows], predicted])
