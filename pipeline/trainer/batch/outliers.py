"""The single sample that makes a batch unfit to learn from, to name it to the operator."""

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.trainer.batch.prefetch import PreparedBatch

_SHARE = 0.5
"""A sample is named if it causes at least this share of the batch's loss."""


def outlier(prepared: PreparedBatch, logits: Float32s) -> int | None:
    """The sample with most of the loss; None if it has less than half of it.

    A row with a number that is not finite is returned first: batch normalisation spreads it to the logits of all rows.

    Args:
        prepared: the batch of n samples.
        logits: [n, labels] as the network returned them.
    """
    for values in (prepared.dense, logits):
        if (row := first_not_finite(values)) is not None:
            return row
    targets, z = prepared.targets, logits.astype(np.float64) - prepared.targets.log_rate[:, None]
    losses = np.abs(targets.positive * np.logaddexp(0, -z) + targets.negative * np.logaddexp(0, z)).sum(axis=1)
    row = int(losses.argmax())
    return row if losses[row] >= _SHARE * losses.sum() else None


def first_not_finite(values: Float32s) -> int | None:
    """The first of n rows of `values` [n, columns] with a number that is not finite; None without one.

    >>> first_not_finite(np.float32([[1, 2], [3, np.inf]]))
    1
    """
    rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
    return int(rows[0]) if len(rows) else None
