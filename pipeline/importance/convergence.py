"""Convergence: how settled a row is, tracked live. A row whose steps have become small against itself has converged.

The step is measured against the row, ‖Δ‖ / (‖Δ‖ + ‖w‖): the update-to-weight ratio by which a learning rate is judged
(You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017, section 4), folded into [0, 1] and
smoothed by an exponential moving average. The native table keeps that average as `unsettled`; this is what it is tested
against.
"""

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]

SETTLING = np.float32(1 / 16)
"""Weight of the newest step in the average."""


def relative_step(steps: Float32s, weights: Float32s) -> Float32s:
    """‖Δ‖ / (‖Δ‖ + ‖w‖) of each row; 0 where nothing moved.

    Args:
        steps: [n, dim] float32, what the optimizer takes from the weights.
        weights: [n, dim] float32, before the step.

    Returns:
        [n] float32 in [0, 1].

    >>> relative_step(np.float32([[3, 4], [0, 0]]), np.float32([[0, 15], [0, 0]]))
    array([0.25, 0.  ], dtype=float32)
    """
    moved = np.sqrt(np.sum(steps * steps, axis=1, dtype=np.float32))
    length = np.sqrt(np.sum(weights * weights, axis=1, dtype=np.float32))
    relative: Float32s = np.divide(moved, moved + length, out=np.zeros_like(moved), where=moved > 0)
    return relative


def settle(unsettled: Float32s, relative: Float32s, first: npt.NDArray[np.bool_]) -> Float32s:
    """The average after one more step; a row's first step sets it.

    >>> settle(np.float32([1, 0.5]), np.float32([0.25, 0.25]), np.array([True, False]))
    array([0.25    , 0.484375], dtype=float32)
    """
    return np.where(first, relative, unsettled + SETTLING * (relative - unsettled)).astype(np.float32)


def convergence(unsettled: Float32s) -> Float32s:
    """From 0 (as unsettled as a row never updated) to 1 (it no longer moves).

    >>> convergence(np.float32([1, 0.25]))
    array([0.  , 0.75], dtype=float32)
    """
    settled: Float32s = np.float32(1) - unsettled
    return settled
