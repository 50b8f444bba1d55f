"""Convergence: how far a row has settled, tracked live. A row has converged if its steps are small relative to it.

A step is measured relative to the row, ‖Δ‖ / (‖Δ‖ + ‖w‖): the update-to-weight ratio by which a learning rate is judged
(You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017, section 4), folded into [0, 1]. The
native table stores its exponential moving average, in which the last step weighs 1/16, as `unsettled`.
"""

import numpy as np

from pipeline.arrays.types import Float32s


def convergence(unsettled: Float32s) -> Float32s:
    """From 0 (a row that was never updated) to 1 (a row that no longer moves).

    >>> convergence(np.float32([1, 0.25]))
    array([0.  , 0.75], dtype=float32)
    """
    settled: Float32s = np.float32(1) - unsettled
    return settled
