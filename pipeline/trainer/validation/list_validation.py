"""Progressive validation of lists: each is scored once, when the log has passed its last sample.

A list is the samples with one value of the label's `list_column` that stand together in the log. The one that a batch
ends in is held until a sample of another list follows, with the outputs that its samples had before they were learned
from: batches cut no list, so the metrics are those of whole lists, and the same for every batch size up to what was
learned in between. The held list is part of a version.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.arrays.types import Bools, Float64s, Int64s
from pipeline.configuration.model.labels import TopLists
from pipeline.errors import DamagedError
from pipeline.trainer.validation.label_validation import ORDER, LabelValidation
from pipeline.trainer.validation.order_scores import order_scores


@dataclass(frozen=True)
class ListedSamples:
    """n samples in log order.

    Attributes:
        lists: [n] text that the samples of one list share; none is null.
        at_ms: [n] sample times.
        own: [n] outputs of the label.
        fine: [n] those of its teacher; of a label without one its own.
        clicked: [n]
    """

    lists: pa.Array
    at_ms: Int64s
    own: Float64s
    fine: Float64s
    clicked: Bools

    def __len__(self) -> int:
        return len(self.at_ms)

    def after(self, earlier: "ListedSamples") -> "ListedSamples":
        """These behind `earlier` ones."""
        lists = pa.concat_arrays([earlier.lists, self.lists])
        columns = ((getattr(part, name) for part in (earlier, self)) for name in _COLUMNS)
        return ListedSamples(lists, *(np.concatenate([*column]) for column in columns))

    def where(self, mask: Bools) -> "ListedSamples":
        """Those of some samples."""
        return ListedSamples(self.lists.filter(pa.array(mask)), *(getattr(self, name)[mask] for name in _COLUMNS))


_COLUMNS = ("at_ms", "own", "fine", "clicked")
_LONGEST = 1 << 16
"""Samples of a list that is held: a longer one is counted in pieces, so that a version stays small."""
_TYPES = (np.int64, np.float64, np.float64, np.bool_)


class ListValidation:
    """That of one label of one shard. Not thread-safe."""

    def __init__(self, top: TopLists, taught: bool) -> None:
        """`taught`: whether the label has a teacher."""
        self.top, self.taught = top, taught
        self._validation = LabelValidation(ORDER)
        self._held: ListedSamples | None = None

    def score(self, samples: ListedSamples) -> None:
        """Count the lists that are complete with these samples."""
        if not len(samples):
            return
        samples = samples if self._held is None else samples.after(self._held)
        numbers = np.asarray(samples.lists.dictionary_encode().indices, np.int64)
        last = numbers == numbers[-1]
        last &= bool(last.sum() <= _LONGEST)
        self._held = samples.where(last)
        complete = samples.where(~last)
        if len(complete):
            numbers = np.unique(numbers[~last], return_inverse=True)[1]
            fine = complete.fine if self.taught else None
            scores = order_scores(numbers, complete.own, fine, complete.clicked, self.top)
            ends = np.zeros(len(scores), np.int64)
            np.maximum.at(ends, numbers, complete.at_ms)
            self._validation.score(scores, ends)

    def report(self) -> dict[str, Any]:
        """As that of `LabelValidation`, of complete lists."""
        return self._validation.report()

    def to_bytes(self) -> bytes:
        held = self._held
        columns = [] if held is None else [held.lists.to_pylist(), *(getattr(held, n).tolist() for n in _COLUMNS)]
        state = {"settings": self._settings, "validation": self._validation.state(), "held": columns}
        return json.dumps(state, separators=(",", ":")).encode()

    def load(self, state: bytes) -> None:
        """Continue from `to_bytes`; from the beginning if k, m or the teacher were others. Raises DamagedError."""
        try:
            document = json.loads(state)
            if document["settings"] != self._settings:
                return
            self._held = _held_of(document["held"])
            self._validation = LabelValidation.restore(document["validation"])
        except (ValueError, KeyError, TypeError) as failure:
            raise DamagedError(f"state of list validation, {len(state)} bytes, is damaged: {failure}") from None

    @property
    def _settings(self) -> list[Any]:
        return [self.top.k, self.top.m, self.taught]


def _held_of(columns: list[list[Any]]) -> ListedSamples | None:
    """The list that was held, from its columns; None from none. Raises ValueError."""
    if not columns:
        return None
    lists, *others = columns
    names = pa.array(lists, pa.string())
    return ListedSamples(names, *(np.array(c, kind) for c, kind in zip(others, _TYPES, strict=True)))


def with_lists(report: dict[str, Any], lists: dict[str, Any]) -> dict[str, Any]:
    """The report of a label with the metrics of its lists: of all samples, and of the hours that both have."""
    hours = {row["start_ms"]: row for row in lists["windows"]}
    windows = [hours.get(row["start_ms"], {}) | row for row in report["windows"]]
    return report | {"total": lists["total"] | report["total"], "windows": windows}
