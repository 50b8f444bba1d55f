"""The attribution of one feedback: which impression each of its events belongs to, and the label that follows.

The rules are in `join`. A click is an event of the feedback; its windows, horizon, policy and labels are the feedback's
own, the held impressions are shared by all feedbacks.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import EventBlock, EventKind
from pipeline.arrays.types import Int64s
from pipeline.configuration.config import Config
from pipeline.samples.held.durations import Durations
from pipeline.samples.held.held_impressions import HeldImpressions
from pipeline.samples.held.index import NONE
from pipeline.samples.held.rows import Source
from pipeline.samples.join import samples
from pipeline.samples.join.clicks import Clicks, lowest_offsets
from pipeline.samples.join.decided import Decided
from pipeline.samples.join.negative_sampling import NegativeSampling
from pipeline.samples.join.progress import emitted
from pipeline.samples.join.progress.emitted import EmittedPositions
from pipeline.samples.join.ranges import Ranges
from pipeline.samples.join.samples import DecidedSamples
from pipeline.samples.join.waiting import WaitingClicks

_LABELLED = emitted.POSITIVE | emitted.COMPENSATED


class Attribution:
    """Not thread-safe.

    Attributes:
        feedback: its configuration.
        number: its place among the feedbacks.
        durations: its own, in ms.
        fake: whether its policy is `fake_negative`.
        pending: clicks without an impression yet.
        undecided: clicks that may yield a sample when their window closes.
    """

    def __init__(self, config: Config, number: int, held: HeldImpressions, decided: Decided) -> None:
        self.feedback, self.number = config.feedbacks[number], number
        self.durations = Durations.of(config, self.feedback)
        self.fake = self.feedback.policy == "fake_negative"
        self.pending = self._closed = self._none = Clicks.empty(self.feedback.events)
        self.undecided = WaitingClicks(self.feedback.events, "impression_at")
        self._key, self._held, self._decided = config.events.key, held, decided
        self._longest, self._sampling = Durations.of(config), NegativeSampling(config.samples.negative_rate)
        names = config.label_names
        self._labels = [names.index(label.name) for label in self.feedback.labels], len(names)
        self._arrived: list[Clicks] = []

    @property
    def kind(self) -> EventKind:
        """Of its events."""
        return self.feedback.kind

    @property
    def settled(self) -> bool:
        """Whether no click arrived since the last `attribute`."""
        return not self._arrived

    @property
    def idle(self) -> bool:
        """Whether no click waits."""
        return not (len(self.pending) or len(self.undecided))

    def feed(self, block: EventBlock) -> None:
        """Receive the clicks of a block; one with a label out of its range is a dead letter."""
        clicks = Clicks.of(block, self._key)
        wrong = Ranges.clicks(self.feedback, clicks.columns)
        self._decided.add_dead("label_out_of_range", self.feedback.topic, clicks.rows, clicks.columns, wrong)
        self._arrived.append(clicks.where(~wrong))

    def attribute(self, limit_ms: int, watermark_ms: int | None) -> None:
        """Decide about the clicks up to `limit_ms`; `watermark_ms` is that of all impressions."""
        clicks = Clicks.concatenate([self.pending, *self._arrived])
        self._arrived = []
        due, later = clicks.split_at(limit_ms)
        self.pending = Clicks.concatenate([self._attribute(due, watermark_ms), later])

    def settle_positives(self, watermark_ms: int) -> None:
        """With policy `close`: emit the positives whose windows are closed at the smallest watermark of all inputs.

        Call it before the windows close: those of other impressions yield negatives.
        """
        if self.feedback.policy != "close":
            return
        closed = self.undecided.release(watermark_ms - self.durations.window_ms)
        if len(closed):
            positive = self._on_time(closed)
            first = self._first_of_each(closed.where(positive), emitted.POSITIVE)
            self._emit(samples.POSITIVE, first, first.rows["impression_at"] + self.durations.window_ms)
            self._closed = closed.where(~positive)

    def settle(self, watermark_ms: int) -> None:
        """Compensate the undecided clicks whose windows are closed at the smallest watermark of all inputs."""
        closed = self.undecided.release(watermark_ms - self.durations.window_ms)
        closed, self._closed = Clicks.concatenate([self._closed, closed]), self._none
        if len(closed):
            self._compensate(closed)

    def emitted_in(self, batch: pa.RecordBatch) -> np.ndarray:
        """[m] EMITTED of a block of samples: those that decide its labels."""
        return emitted.emitted_by_feedback(self.number, self.feedback, batch)

    def drop_emitted(self, positions: EmittedPositions) -> None:
        """Drop waiting clicks about which something was emitted."""

        def remaining(clicks: Clicks) -> Clicks:
            return clicks.where(~positions.known(self.number + 1, clicks.rows))

        self.pending = remaining(self.pending)
        self.undecided.replace(remaining(self.undecided.in_order()))

    def lowest_offsets(self) -> Mapping[int, int]:
        """By partition, the lowest source offset of a waiting click."""
        lowest = self.undecided.lowest_offsets()
        for partition, offset in lowest_offsets(self.pending.rows).items():
            lowest[partition] = min(offset, lowest.get(partition, offset))
        return lowest

    def _attribute(self, clicks: Clicks, watermark_ms: int | None) -> Clicks:
        """Attribute clicks to their impressions and decide those that have none; returns those that are pending."""
        if not len(clicks):
            return clicks
        at, effective, longest = clicks.rows["at"], clicks.rows["effective"], self._longest
        places, times, next_at = self._held.find(clicks.ids(), at)
        known = (places != NONE) & (effective - longest.known_ms < times)
        clicks.rows["place"], clicks.rows["impression_at"] = places, times
        self._decide_attributed(clicks.where(known))
        if watermark_ms is None:
            return clicks.where(~known)
        pending = ~known & (at + longest.disorder_ms >= watermark_ms)
        before = (next_at <= at + longest.disorder_ms) & (effective - longest.held_ms < next_at)
        lost = ~known & ~pending
        self._set_aside("click_before_impression", clicks, lost & before)
        self._set_aside("orphan_click", clicks, lost & ~before)
        return clicks.where(pending)

    def _decide_attributed(self, clicks: Clicks) -> None:
        rows, durations = clicks.rows, self.durations
        too_late = rows["at"] - rows["impression_at"] >= durations.attributed_ms
        self._set_aside("click_too_late", clicks, too_late)
        if self.fake:
            self._compensate(clicks.where(~too_late))
            return
        at_once = self._on_time(clicks) & ~too_late & (self.feedback.policy == "wait")
        positives = self._first_of_each(clicks.where(at_once), emitted.POSITIVE)
        self._emit(samples.POSITIVE, positives, positives.rows["at"])
        self.undecided.add(clicks.where(~at_once & ~too_late))

    def _on_time(self, clicks: Clicks) -> np.ndarray:
        """[n] which clicks came in their windows and not late."""
        rows = clicks.rows
        in_window = ~rows["late"] & (rows["at"] - rows["impression_at"] < self.durations.window_ms)
        # Only a restored emission can have closed the window of such a click: the negative that was emitted is final.
        return np.asarray(in_window & (self._held.flags_at(_places(clicks), self.number) & emitted.NEGATIVE == 0))

    def _compensate(self, clicks: Clicks) -> None:
        first = self._first_of_each(clicks, emitted.COMPENSATED)
        closes_at = first.rows["impression_at"] + (0 if self.fake else self.durations.window_ms)
        self._emit(samples.COMPENSATION, first, np.maximum(first.rows["at"], closes_at))

    def _first_of_each(self, clicks: Clicks, flag: int) -> Clicks:
        """The first click of each impression that has none yet, whose flags gain `flag`; others are duplicates."""
        places = _places(clicks)
        free = np.flatnonzero(self._held.flags_at(places, self.number) & _LABELLED == 0)
        first = np.zeros(len(clicks), np.bool_)
        first[free[np.unique(places[free], return_index=True)[1]]] = True
        self._held.set_flags(places[first], flag, self.number)
        self._set_aside("duplicate_click", clicks, ~first)
        return clicks.where(first)

    def _emit(self, kind: int, clicks: Clicks, decided_at_ms: Int64s) -> None:
        if not len(clicks):
            return
        places = _places(clicks)
        held, columns = self._held.rows_at(places), self._held.select(places)
        written = self._sampling.sampled(held) & (kind == samples.COMPENSATION)
        own, width = self._labels
        labels = np.zeros((len(clicks), width), np.float32)
        labels[:, own] = clicks.labels(self.feedback.labels)
        self._decided.add(
            DecidedSamples(
                kind, decided_at_ms, Source.of(held), written, columns, Source.of(clicks.rows), labels, self.number
            )
        )

    def _set_aside(self, reason: str, clicks: Clicks, which: np.ndarray) -> None:
        self._decided.add_dead(reason, self.feedback.topic, clicks.rows, clicks.columns, which)


def _places(clicks: Clicks) -> np.ndarray:
    return np.ascontiguousarray(clicks.rows["place"])
