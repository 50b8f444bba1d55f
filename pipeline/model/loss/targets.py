"""The loss of a batch of samples in terms of the model's outputs, as plain weights and values. NumPy only.

Per sample and label, the loss is positive · L(value, z′) + negative · L(earlier, z′). With the sample's weight w, the
label's weight λ and its value y, 0 without a click:

    logistic label, value = 1, earlier = 0, y in [0, 1], z′ = logit − log(rate)
      positive, negative   positive = λw·y   negative = λw·(1 − y)
      compensation         positive = λw·y   negative = λw·(1 − y) − λw if its negative was written, else λw·(1 − y)
    any other label, value = y, earlier = 0, z′ = output
      positive, negative   positive = λw     negative = 0
      compensation         positive = λw     negative = −λw if its negative was written, else 0
    a logistic label with another correction than `reversal`: negative = λw·(1 − y) also for a compensation; with
      `importance` the step multiplies both weights by those of `late_labels`
    a label that estimates something about late events: a logistic label with y = 0 unless a compensation, whose weights
      for a positive are those times the rate, because only negatives are down-sampled; `fake_negative` observes no
      positive
    a label with a loss over lists, value = y: positive = λw, negative = 0; a compensation is not observed, because the
      list of its impression was learned; for that reason it is in no list of any other label
    a label with two towers, value = 1: positive = λw·y, negative = 0, also for a compensation: a negative adds its item
      to those of the batch and nothing to the loss, so there is nothing to reverse
    a label whose value is null was not observed: positive = negative = 0. So are all labels of a candidate that was not
      shown: what a label with `candidates` learns of it is its `soft` target

A compensation reverses the loss of the fake negative that was learned under the same weight and rate, and adds the
loss of the click: the expected gradient is that of the true label (Ktena et al. 2019, "Addressing Delayed Feedback for
Continuous Training with Neural Networks in CTR prediction", on fake negatives). With down-sampled negatives, training
on logit − log(rate) leaves the logit calibrated (King and Zeng 2001, prior correction); other losses have no such
correction, and their samples must have rate 1, except with two towers, where the estimate of Q follows the rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.types import Bools, Float32s, Int32s
from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.model.towers import towers_of
from pipeline.configuration.streams.events import CANDIDATE_SCORE
from pipeline.errors import RowError
from pipeline.logs.events.sample_block import of_kind
from pipeline.model.loss.batch_items import BatchItems


class TargetError(RowError):
    """A label, weight or rate of row `row` is outside its range."""


@dataclass(frozen=True)
class Targets:
    """Weights and values of n samples and L labels."""

    positive: Float32s
    """[n, L] weight of the loss of `value`; of a logistic label that of BCE(1)."""
    negative: Float32s
    """[n, L] weight of the loss of `earlier`, of a logistic label that of BCE(0); below zero if a written value is
    reversed."""
    log_rate: Float32s
    """[n]"""
    weight: Float32s
    """[n] weights of the samples."""
    scored_positive: Float32s
    """[n, L] as `positive` without the label's weight, for progressive validation on the output itself."""
    scored_negative: Float32s
    """[n, L] as `negative` likewise, with each down-sampled negative counted 1 / rate times."""
    value: Float32s
    """[n, L] the value; 1 for a logistic label."""
    earlier: Float32s
    """[n, L] the value that a compensation reverses; 0 for a logistic label."""
    observed: Bools
    """[n, L] whether the sample has a value of the label."""
    lists: Int32s | None = None
    """[n, L] number of the sample's list, below n; -1 in none. None if no label has lists."""
    soft: Float32s | None = None
    """[n, 2] of candidates that were not shown the logged fine score and the sample's weight; zeros of all others. None
    if no label learns candidates."""
    batch_items: BatchItems | None = None
    """Of a label with two towers, which the caller adds to `targets_of`."""

    def __len__(self) -> int:
        return len(self.weight)

    def part(self, start: int, stop: int) -> "Targets":
        """Those of the samples from `start` to `stop`, with lists of their own."""
        given = {name: column for name, column in vars(self).items() if column is not None}
        columns = {name: column[start:stop] for name, column in given.items() if name != "batch_items"}
        if self.batch_items is not None:
            columns["batch_items"] = self.batch_items.part(start, stop)
        if self.lists is not None:
            columns["lists"] = np.stack([_renumbered(column) for column in columns["lists"].T], axis=1)
        return Targets(**columns)


def targets_of(samples: pa.RecordBatch, labels: Sequence[LabelConfig | str]) -> Targets:
    """Targets of the samples of a sample block.

    Args:
        samples: n rows with the label columns, `weight`, `rate`, `kind` and `negative_written`; those written before a
            label was declared lack its column and do not observe it.
        labels: the L labels; a name is that of a logistic one.

    Raises:
        TargetError: a label is outside the domain of its loss, a weight negative, a rate outside (0, 1] or not 1 for a
            label that cannot be corrected for it, or one of them not a number.
    """
    declared = [LabelConfig(name=label) if isinstance(label, str) else label for label in labels]
    samples = _with_labels(samples, declared)
    weight = _numbers(samples, "weight", 0.0, float(np.finfo(np.float32).max))
    rate = _numbers(samples, "rate", float(np.finfo(np.float32).tiny), 1.0)
    parts = _parts_of(samples, declared, rate)
    scale = np.array([label.weight for label in declared], np.float32)

    def stacked(name: str) -> Float32s:
        return np.stack([getattr(part, name) for part in parts], axis=1)

    return Targets(
        positive=weight[:, None] * stacked("positive") * scale,
        negative=weight[:, None] * stacked("negative") * scale,
        log_rate=np.log(rate),
        weight=weight,
        scored_positive=weight[:, None] * stacked("scored_positive"),
        scored_negative=weight[:, None] * stacked("scored_negative"),
        value=stacked("value"),
        earlier=stacked("earlier"),
        observed=np.stack([part.observed for part in parts], axis=1),
        lists=_lists_of(samples, declared, parts),
        soft=_soft_targets_of(samples, weight) if any(label.candidates for label in declared) else None,
    )


def _parts_of(samples: pa.RecordBatch, labels: Sequence[LabelConfig], rate: Float32s) -> "list[_Part]":
    """What each label contributes; `rate` [n] as in the samples."""
    written = samples.column("negative_written").fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
    compensation = of_kind(samples, "compensation")
    reverses = written & compensation
    represented = np.where(of_kind(samples, "negative"), 1 / rate, 1).astype(np.float32)
    if not all(label.any_rate for label in labels):
        _check_rates(rate, labels)

    def part(label: LabelConfig) -> _Part:
        if label.over_lists:
            return _Part.of_list(samples, label, ~compensation)
        if label.towers is not None:
            return _Part.of_towers(samples, label)
        if label.estimates is not None:
            return _Part.of_estimate(samples, label, reverses, represented, rate)
        return _Part.of(samples, label, reverses, represented, rate)

    return [part(label) for label in labels]


def _lists_of(samples: pa.RecordBatch, labels: Sequence[LabelConfig], parts: "Sequence[_Part]") -> Int32s | None:
    """The lists of the samples that observe each label when its window closes."""
    if not any(label.learns_lists for label in labels):
        return None
    compensation, candidate = of_kind(samples, "compensation"), of_kind(samples, "candidate")
    lists = np.full((len(samples), len(labels)), -1, np.int32)
    for i, (label, part) in enumerate(zip(labels, parts, strict=True)):
        if label.learns_lists and label.list_column in samples.schema.names:
            numbers = pc.fill_null(samples.column(label.list_column).dictionary_encode().indices, -1)
            member = part.observed & ~compensation | candidate & label.lists_candidates
            lists[:, i] = np.where(member, numbers.to_numpy(zero_copy_only=False), -1)
    return lists


def _soft_targets_of(samples: pa.RecordBatch, weight: Float32s) -> Float32s:
    """[n, 2] as `Targets.soft`; `weight` [n] of the samples."""
    if CANDIDATE_SCORE not in samples.schema.names:
        return np.zeros((len(samples), 2), np.float32)
    candidate = of_kind(samples, "candidate")
    scores = pc.if_else(pa.array(candidate), samples.column(CANDIDATE_SCORE), pa.scalar(0.0, pa.float32()))
    score = _numbers(pa.record_batch({CANDIDATE_SCORE: scores}), CANDIDATE_SCORE, 0.0, 1.0)
    return np.stack([score, np.where(candidate, weight, 0)], axis=1).astype(np.float32)


def _renumbered(lists: Int32s) -> Int32s:
    """[n] the lists by numbers below n."""
    return np.where(lists < 0, -1, np.unique(np.maximum(lists, 0), return_inverse=True)[1]).astype(np.int32)


def _with_labels(samples: pa.RecordBatch, labels: Sequence[LabelConfig]) -> pa.RecordBatch:
    for label in labels:
        if samples.schema.get_field_index(label.source) < 0:
            samples = samples.append_column(label.source, pa.nulls(len(samples), pa.float32()))
    return samples


def trial_targets(n: int, labels: Sequence[LabelConfig]) -> Targets:
    """Targets of n made up samples, to find what fails on any batch."""
    each, no = np.ones((n, len(labels)), np.float32), np.zeros(n, np.float32)
    ones = [min(max(1.0, label.limits[0]), label.limits[1]) for label in labels]
    value = np.tile(np.array(ones, np.float32), (n, 1))
    lists = np.tile(np.array([0 if label.learns_lists else -1 for label in labels], np.int32), (n, 1))
    soft = np.zeros((n, 2), np.float32) if any(label.candidates for label in labels) else None
    found, towers = lists if (lists >= 0).any() else None, towers_of(labels)
    batch_items = None if towers is None else BatchItems.trial(n + towers.drawn)
    return Targets(each, each, no, no + 1, each, each, value, value, each > 0, found, soft, batch_items)


@dataclass(frozen=True)
class _Part:
    """The columns of one label, [n] each, for weights of 1; see `Targets`."""

    positive: Float32s
    negative: Float32s
    scored_positive: Float32s
    scored_negative: Float32s
    value: Float32s
    earlier: Float32s
    observed: Bools

    @classmethod
    def of(
        cls, samples: pa.RecordBatch, label: LabelConfig, reverses: Bools, represented: Float32s, rate: Float32s
    ) -> "_Part":
        """The part of `label`; by sample, whether it reverses a negative, how many it represents, and its rate."""
        observed = samples.column(label.source).is_valid().to_numpy(zero_copy_only=False)
        least, most = label.limits
        # A loss may be infinite outside its range, and an infinite one times a weight of 0 is not 0.
        y = _numbers(samples, label.source, *label.domain, null=min(max(0.0, least), most))
        none, one = np.zeros(len(y), np.float32), np.ones(len(y), np.float32)
        columns: list[Any]
        if label.logistic:
            all_negatives = (1 - y) * represented - reverses / rate
            taken_back = reverses if label.correction == "reversal" else none
            columns = [y, (1 - y) - taken_back, y * represented, all_negatives, one, none]
        else:
            columns = [one, none - reverses, one, none - reverses, y, np.where(reverses, none, y)]
        if not observed.all():
            columns[:4] = [np.where(observed, weight, 0) for weight in columns[:4]]
        positive, negative, scored_positive, scored_negative, value, earlier = (
            np.asarray(column, np.float32) for column in columns
        )
        return cls(positive, negative, scored_positive, scored_negative, value, earlier, observed)

    @classmethod
    def of_estimate(
        cls, samples: pa.RecordBatch, label: LabelConfig, reverses: Bools, represented: Float32s, rate: Float32s
    ) -> "_Part":
        """The part of a label that estimates late events; arguments as those of `of`."""
        y = np.where(of_kind(samples, "compensation"), _numbers(samples, label.source, *label.domain, null=0.0), 0)
        observed = samples.column(label.source).is_valid().to_numpy(zero_copy_only=False)
        positive = of_kind(samples, "positive")
        if label.estimates == "fake_negative":
            observed = observed & ~positive
        columns = [y, (1 - y) * np.where(positive, rate, 1) - reverses, y, (1 - y) * represented - reverses / rate]
        weights = [np.where(observed, column, 0).astype(np.float32) for column in columns]
        positive_weight, negative_weight, *scored = weights
        one, none = np.ones(len(y), np.float32), np.zeros(len(y), np.float32)
        return cls(positive_weight, negative_weight, scored[0], scored[1], one, none, observed)

    @classmethod
    def of_list(cls, samples: pa.RecordBatch, label: LabelConfig, learned: Bools) -> "_Part":
        """The part of a label with a loss over lists; by sample, whether it is learned."""
        y = _numbers(samples, label.source, *label.domain, null=0.0)
        observed = learned & samples.column(label.source).is_valid().to_numpy(zero_copy_only=False)
        one, none = observed.astype(np.float32), np.zeros(len(y), np.float32)
        return cls(one, none, one, none, y, none, observed)

    @classmethod
    def of_towers(cls, samples: pa.RecordBatch, label: LabelConfig) -> "_Part":
        """The part of a label with two towers."""
        y = _numbers(samples, label.source, *label.domain, null=0.0)
        observed = samples.column(label.source).is_valid().to_numpy(zero_copy_only=False).astype(bool)
        one, none = np.ones(len(y), np.float32), np.zeros(len(y), np.float32)
        return cls(y, none, y, none, one, none, observed)


def _check_rates(rate: Float32s, labels: Sequence[LabelConfig]) -> None:
    """Raise TargetError for a sample of down-sampled negatives."""
    wrong = np.flatnonzero(rate != 1)
    if len(wrong):
        label, row = next(label for label in labels if not label.any_rate), int(wrong[0])
        problem = f"sample {row} of a batch has rate {rate[row]:g}, wanted 1 for label {label.name}"
        raise TargetError(f"{problem} of loss {label.loss}", row)


def _numbers(samples: pa.RecordBatch, name: str, low: float, high: float, null: float = np.nan) -> Float32s:
    """[n] a column; TargetError for a value outside `low` to `high` or not a number; nulls are `null`."""
    values = np.asarray(samples.column(name).fill_null(null).to_numpy(zero_copy_only=False), np.float32)
    wrong = np.flatnonzero(~((values >= low) & (values <= high)))  # also true for NaN
    if len(wrong):
        row = int(wrong[0])
        raise TargetError(f"sample {row} of a batch has {name} {values[row]}, wanted {low:g} to {high:g}", row)
    return values
