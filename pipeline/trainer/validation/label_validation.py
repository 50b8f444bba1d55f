"""Progressive validation: every sample is scored before it is learned from.

Log loss, normalized entropy, calibration and AUC of a logistic label; mean loss and recall of two towers; mean loss,
calibration and RMSE of any other.
They cover all samples, and each hour of log time. A sample counts in the hour that log time has reached when the sample
is read, so hours close in order and a replay gives the same hours. All sums are signed: a compensation reverses its
fake negative.
"""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.arrays.types import Int64s
from pipeline.errors import DamagedError
from pipeline.trainer.validation.binary_scores import BinaryMetrics, BinaryScores, BinarySums
from pipeline.trainer.validation.numeric_scores import ListSums, NumericMetrics, NumericScores, NumericSums
from pipeline.trainer.validation.order_scores import OrderMetrics, OrderScores, OrderSums
from pipeline.trainer.validation.retrieval_scores import RetrievalMetrics, RetrievalScores, RetrievalSums

HOUR_MS = 3_600_000
HOURS = 168
"""Closed hours that are stored: a week."""
FORMAT = 1
WITHOUT_POSITIVE_HINT = "a second event of a key, such as a purchase after the click, is a duplicate_click"
"""What an operator may find if a label has no positive."""
LOGISTIC, ORDER = "logistic", "order"

Metrics = BinaryMetrics | NumericMetrics | RetrievalMetrics | OrderMetrics
LabelScores = BinaryScores | NumericScores | RetrievalScores
Scores = LabelScores | OrderScores
_KINDS: dict[str, tuple[Any, Any]] = {
    LOGISTIC: (BinarySums, BinaryMetrics),
    "softmax": (ListSums, NumericMetrics),
    ORDER: (OrderSums, OrderMetrics),
    "in_batch": (RetrievalSums, RetrievalMetrics),
}
"""By loss, the classes of sums and metrics."""
_OF_NUMBERS: tuple[Any, Any] = NumericSums, NumericMetrics


class LabelValidation:
    """Progressive validation of one label of one shard. Not thread-safe."""

    def __init__(self, loss: str = LOGISTIC) -> None:
        """`loss`: of the label; `ORDER` for the order of its lists (`list_validation`)."""
        self.loss = loss
        self._sums, self._metrics = _KINDS.get(loss, _OF_NUMBERS)
        self._total: Any = self._sums()
        self._hour: Any = self._sums()
        self._now_ms: int | None = None
        self._closed: deque[tuple[int, Metrics]] = deque(maxlen=HOURS)

    def score(self, scores: Scores, at_ms: Int64s) -> None:
        """Count n samples in log order, scored before the step that learns from them.

        Args:
            scores: of the samples, of the kind that belongs to the label's loss.
            at_ms: [n] each sample's time.
        """
        if not len(scores):
            return
        self._total.add(scores)
        start_ms = int(at_ms[0]) if self._now_ms is None else self._now_ms
        hours = np.maximum.accumulate(np.maximum(at_ms, start_ms)) // HOUR_MS
        for hour in np.unique(hours) if hours[0] != hours[-1] else hours[:1]:
            self._open(int(hour) * HOUR_MS)
            # Most batches lie in one hour: what was summed for all samples is then not summed again.
            self._hour.add(scores if hours[0] == hours[-1] else scores.where(hours == hour))
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
        loss = {} if self.loss == LOGISTIC else {"loss": self.loss}
        return loss | {
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
        validation = cls(state.get("loss", LOGISTIC))
        restored = validation._sums.restore
        validation._now_ms = state["now_ms"]
        validation._total, validation._hour = restored(state["total"]), restored(state["window"])
        validation._closed.extend((start_ms, validation._metrics(**metrics)) for start_ms, metrics in state["closed"])
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
            self._hour = self._sums()
        self._now_ms = start_ms if self._now_ms is None else max(self._now_ms, start_ms)


def _hour_of(at_ms: int) -> int:
    return at_ms // HOUR_MS * HOUR_MS


def labels_without_positive(reports: Mapping[str, Any], after_samples: int | None) -> list[str]:
    """The labels that had no positive in at least `after_samples` samples; none if that is off.

    Such a label may be one that no click sets, as that of a second event after the click.

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
