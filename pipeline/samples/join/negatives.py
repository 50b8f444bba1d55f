"""Negative samples: windows that close without a positive.

Feedbacks whose windows close together decide the labels of an impression at the same time: they yield one sample. These
are feedbacks with equal windows, and all those with the policy `fake_negative`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Int64s, UInt64s
from pipeline.samples.held.bucket import Bucket
from pipeline.samples.held.held_impressions import HeldImpressions
from pipeline.samples.held.rows import EmissionFilter, sources_of
from pipeline.samples.join import samples
from pipeline.samples.join.attribution import Attribution
from pipeline.samples.join.negative_sampling import NegativeSampling
from pipeline.samples.join.progress import emitted
from pipeline.samples.join.samples import DecidedSamples


@dataclass(frozen=True)
class ClosingWindows:
    """Feedbacks whose windows close together.

    Attributes:
        feedbacks: their numbers.
        after_ms: after the impression.
        fake: whether their negatives do not wait for the watermark.
    """

    feedbacks: tuple[int, ...]
    after_ms: int
    fake: bool

    def close(self, held: HeldImpressions, closed_at_ms: int, sampling: NegativeSampling) -> Iterator[DecidedSamples]:
        """Close the windows of impressions up to `closed_at_ms`; the negatives that follow."""
        emission = EmissionFilter(emitted.POSITIVE | emitted.NEGATIVE, sampling.ids_below)
        for bucket in self._open(held, closed_at_ms):
            closed = [bucket.close_until(closed_at_ms, emission, feedback) for feedback in self.feedbacks]
            rows, decides = self._united(closed)
            if len(rows):
                sources, written = sources_of(bucket.rows, rows), np.ones(len(rows), np.bool_)
                yield DecidedSamples(
                    samples.NEGATIVE,
                    sources.at + self.after_ms,
                    sources,
                    written,
                    bucket.select(rows),
                    feedback=self.feedbacks[0],
                    decides=decides,
                )

    def _open(self, held: HeldImpressions, at_ms: int) -> list[Bucket]:
        found = {bucket.serial: bucket for f in self.feedbacks for bucket in held.open_until(at_ms, f)}
        return list(found.values())

    def _united(self, closed: Sequence[Int64s]) -> tuple[Int64s, UInt64s | None]:
        """The rows of all feedbacks, ascending, and for several feedbacks which of them each row is of."""
        if len(closed) == 1:
            return closed[0], None
        rows = np.unique(np.concatenate(closed))
        decides = np.zeros(len(rows), np.uint64)
        for feedback, of_feedback in zip(self.feedbacks, closed, strict=True):
            decides[np.searchsorted(rows, of_feedback)] |= np.uint64(1 << feedback)
        return rows, decides


def closing_together(attributions: Sequence[Attribution]) -> list[ClosingWindows]:
    """The feedbacks, grouped."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for each in attributions:
        after_ms = 0 if each.fake else each.durations.window_ms
        groups.setdefault((after_ms, each.fake), []).append(each.number)
    return [ClosingWindows(tuple(numbers), *together) for together, numbers in groups.items()]
