"""Importance, convergence and curvature of rows in NumPy: the formulas that the native table is tested against."""

import numpy as np
import numpy.typing as npt

from pipeline.importance.score import decayed

Float32s = npt.NDArray[np.float32]
UInt32s = npt.NDArray[np.uint32]

SETTLING = np.float32(1 / 16)
"""Weight of the last step in the average behind convergence."""


def taylor_score(gradients: Float32s, weights: Float32s) -> Float32s:
    """[n] |⟨gradient, weights⟩| of each row, before the step that the gradient causes; both [n, dim]."""
    return np.abs(np.sum(gradients * weights, axis=1, dtype=np.float32))


def accumulate(importance: Float32s, last_seen_s: UInt32s, score: Float32s, at_s: int, half_life_s: float) -> Float32s:
    """[n] importance after an update at `at_s`: importance before, decayed to that time, plus the update's score."""
    return decayed(importance, last_seen_s, at_s, half_life_s).astype(np.float32) + score


def mean_square(gradients: Float32s) -> Float32s:
    """[n] mean over the weights of squared gradients [n, dim], each of one sample: what an update adds to curvature."""
    return np.mean(gradients * gradients, axis=1, dtype=np.float32)


def relative_step(steps: Float32s, weights: Float32s) -> Float32s:
    """[n] ‖Δ‖ / (‖Δ‖ + ‖w‖) of each row; 0 if nothing moved; steps [n, dim], weights [n, dim] before the step."""
    moved = np.sqrt(np.sum(steps * steps, axis=1, dtype=np.float32))
    length = np.sqrt(np.sum(weights * weights, axis=1, dtype=np.float32))
    relative: Float32s = np.divide(moved, moved + length, out=np.zeros_like(moved), where=moved > 0)
    return relative


def settle(unsettled: Float32s, relative: Float32s, first: npt.NDArray[np.bool_]) -> Float32s:
    """[n] the average of relative steps after one more; a row's first step sets it."""
    return np.where(first, relative, unsettled + SETTLING * (relative - unsettled)).astype(np.float32)
