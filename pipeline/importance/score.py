"""Importance: how much a row matters to the loss, tracked live. The formulas, and who is worth least by them.

Taking a row w out (setting it to zero) changes the loss by about |⟨g, w⟩|, g its gradient: the first-order Taylor
criterion of Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference" (ICLR 2017,
eq. 1) and "Importance Estimation for Neural Network Pruning" (CVPR 2019, eq. 7), with a whole row as the group. The
native table keeps the sum of these scores, decayed by log time; this is what it is tested against.
"""

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]


def taylor_score(gradients: Float32s, weights: Float32s) -> Float32s:
    """|⟨gradient, weights⟩| of each row, before the step that the gradient causes.

    The gradient is the one handed to the table: of the batch's loss, summed over the row's occurrences in the batch.

    Args:
        gradients: [n, dim] float32.
        weights: [n, dim] float32, before the update.

    Returns:
        [n] float32, in units of the loss.

    >>> taylor_score(np.float32([[1, -2]]), np.float32([[3, 4]]))
    array([5.], dtype=float32)
    """
    return np.abs(np.sum(gradients * weights, axis=1, dtype=np.float32))


def decayed(importance: Float32s, last_seen_s: UInt32s, at_s: int | UInt32s, half_life_s: float) -> Float64s:
    """Importance as of `at_s`: half of it is gone after each half-life without an occurrence.

    Args:
        importance: [n] float32, as of `last_seen_s`.
        last_seen_s: [n] uint32, log time in seconds since 1970.
        at_s: when, seconds since 1970; a time before `last_seen_s` decays nothing.
        half_life_s: seconds, > 0.

    Returns:
        [n] float64.

    >>> decayed(np.float32([8, 8]), np.uint32([100, 140]), 120, half_life_s=10)
    array([2., 8.])
    """
    elapsed_s = np.maximum(np.asarray(at_s, np.int64) - last_seen_s.astype(np.int64), 0)
    return importance.astype(np.float64) * np.exp2(-elapsed_s / half_life_s)


def accumulate(importance: Float32s, last_seen_s: UInt32s, score: Float32s, at_s: int, half_life_s: float) -> Float32s:
    """Importance after an update at `at_s`: what was there, decayed to that time, plus the update's score.

    >>> accumulate(np.float32([8]), np.uint32([100]), np.float32([1]), at_s=110, half_life_s=10)
    array([5.], dtype=float32)
    """
    return decayed(importance, last_seen_s, at_s, half_life_s).astype(np.float32) + score


def worst_first(keys: UInt64s, importance: Float32s, last_seen_s: UInt32s, half_life_s: float) -> npt.NDArray[np.int64]:
    """The order in which rows would be given up: least important first, all decayed to one time.

    Ties go to the row unseen for longer, then to the smaller key, so the order never depends on how rows are stored.

    Returns:
        [n] int64 indices into `keys`.

    >>> worst_first(np.uint64([7, 5, 6]), np.float32([1, 0, 0]), np.uint32([9, 9, 9]), half_life_s=60)
    array([1, 2, 0])
    """
    newest_s = int(last_seen_s.max(initial=0))
    scores = decayed(importance, last_seen_s, newest_s, half_life_s)
    return np.lexsort((keys, last_seen_s, scores))


def most_important(
    keys: UInt64s, importance: Float32s, last_seen_s: UInt32s, half_life_s: float, count: int
) -> npt.NDArray[np.int64]:
    """The `count` most important rows, most important first; [min(count, n)] int64 indices into `keys`.

    >>> most_important(np.uint64([7, 5, 6]), np.float32([1, 3, 2]), np.uint32([9, 9, 9]), half_life_s=60, count=2)
    array([1, 2])
    """
    return worst_first(keys, importance, last_seen_s, half_life_s)[::-1][:count]
