"""The single sample that makes a batch unfit to learn from, to name it to the operator."""

import numpy as np

from pipeline.arrays.types import Float32s, Float64s
from pipeline.trainer.batch.prefetch import PreparedBatch

_SHARE = 0.5
"""A sample is named if it causes at least this share of the batch's loss."""


def outlier(prepared: PreparedBatch, logits: Float32s, losses: Float32s | None) -> int | None:
    """The sample with most of the loss; None if it has less than half of it.

    A row with a number that is not finite is returned first: batch normalisation spreads it to the logits of all rows.

    Args:
        prepared: the batch of n samples.
        logits: [n, labels] as `StepResult` has them.
        losses: likewise.
    """
    for values in (prepared.dense[: len(logits)], logits, losses):
        if values is not None and (row := first_not_finite(values)) is not None:
            return row
    of_samples = np.abs(_logistic(prepared, logits) if losses is None else losses.astype(np.float64)).sum(axis=1)
    row = int(of_samples.argmax())
    return row if of_samples[row] >= _SHARE * of_samples.sum() else None


def _logistic(prepared: PreparedBatch, logits: Float32s) -> Float64s:
    """[n, labels] losses of labels that are all logistic."""
    targets, z = prepared.targets, logits.astype(np.float64) - prepared.targets.log_rate[:, None]
    return np.asarray(targets.positive * np.logaddexp(0, -z) + targets.negative * np.logaddexp(0, z))


def first_not_finite(values: Float32s) -> int | None:
    """The first of n rows of `values` [n, columns] with a number that is not finite; None without one.

    >>> first_not_finite(np.float32([[1, 2], [3, np.inf]]))
    1
    """
    rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
    return int(rows[0]) if len(rows) else None
