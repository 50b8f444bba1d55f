"""The loss of a batch of samples in terms of the model's logits, as plain weights. NumPy only.

Per sample and label, the loss is positive · BCE(1, z′) + negative · BCE(0, z′) with z′ = logit − log(rate). With the
sample's weight w and label value y in [0, 1], 0 without a click:

    positive, negative   positive = w·y   negative = w·(1 − y)
    compensation         positive = w·y   negative = w·(1 − y) − w if its negative was written, else w·(1 − y)
    a label whose value is null was not observed: positive = negative = 0

A compensation reverses the BCE(0) of the fake negative that was learned under the same weight and rate, and adds the
loss of the click: the expected gradient is that of the true label (Ktena et al. 2019, "Addressing Delayed Feedback for
Continuous Training with Neural Networks in CTR prediction", on fake negatives). With down-sampled negatives, training
on logit − log(rate) leaves the logit calibrated (King and Zeng 2001, prior correction).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.types import Bools, Float32s
from pipeline.errors import InputError


class TargetError(InputError):
    """A label, weight or rate of row `row` is outside its range."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class Targets:
    """Weights of n samples and L labels."""

    positive: Float32s
    """[n, L] weight of BCE(1)."""
    negative: Float32s
    """[n, L] weight of BCE(0); below zero if a fake negative is reversed."""
    log_rate: Float32s
    """[n]"""
    weight: Float32s
    """[n] weights of the samples."""
    scored_positive: Float32s
    """[n, L] as `positive`, for progressive validation on the logit itself."""
    scored_negative: Float32s
    """[n, L] as `negative`, with each down-sampled negative counted 1 / rate times."""
    observed: Bools
    """[n, L] whether the sample has a value of the label."""

    def __len__(self) -> int:
        return len(self.weight)


def targets_of(samples: pa.RecordBatch, labels: tuple[str, ...]) -> Targets:
    """Targets of the samples of a sample block.

    Args:
        samples: n rows with the label columns, `weight`, `rate`, `kind` and `negative_written`; those written before a
            label was declared lack its column and do not observe it.
        labels: names of the L label columns.

    Raises:
        TargetError: a label is outside 0..1, a weight negative, a rate outside (0, 1], or one of them not a number.
    """
    samples = _with_labels(samples, labels)
    observed = np.stack([samples.column(name).is_valid().to_numpy(zero_copy_only=False) for name in labels], axis=1)
    y = np.stack([_numbers(samples, name, 0.0, 1.0, null=0.0) for name in labels], axis=1)
    weight = _numbers(samples, "weight", 0.0, float(np.finfo(np.float32).max))
    rate = _numbers(samples, "rate", float(np.finfo(np.float32).tiny), 1.0)
    kind = samples.column("kind")
    kind = kind.dictionary_decode() if pa.types.is_dictionary(kind.type) else kind
    written = samples.column("negative_written").fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
    reversed_negative = written & _equals(kind, "compensation")
    represented = np.where(_equals(kind, "negative"), 1 / rate, 1).astype(np.float32)
    targets = Targets(
        positive=weight[:, None] * y,
        negative=weight[:, None] * ((1 - y) - reversed_negative[:, None]),
        log_rate=np.log(rate),
        weight=weight,
        scored_positive=weight[:, None] * y * represented[:, None],
        scored_negative=weight[:, None] * ((1 - y) * represented[:, None] - (reversed_negative / rate)[:, None]),
        observed=observed,
    )
    for weights in (targets.positive, targets.negative, targets.scored_positive, targets.scored_negative):
        weights[~observed] = 0
    return targets


def _with_labels(samples: pa.RecordBatch, labels: tuple[str, ...]) -> pa.RecordBatch:
    for name in labels:
        if samples.schema.get_field_index(name) < 0:
            samples = samples.append_column(name, pa.nulls(len(samples), pa.float32()))
    return samples


def _numbers(samples: pa.RecordBatch, name: str, low: float, high: float, null: float = np.nan) -> Float32s:
    values = np.asarray(samples.column(name).fill_null(null).to_numpy(zero_copy_only=False), np.float32)
    wrong = np.flatnonzero(~((values >= low) & (values <= high)))  # also true for NaN
    if len(wrong):
        row = int(wrong[0])
        raise TargetError(f"sample {row} of a batch has {name} {values[row]}, wanted {low:g} to {high:g}", row)
    return values


def _equals(column: pa.Array, value: str) -> Bools:
    return np.asarray(pc.equal(column, value).to_numpy(zero_copy_only=False), np.bool_)
