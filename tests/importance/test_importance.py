"""Importance and convergence: the formulas, at their boundaries. The table is tested against them in test_table."""

import numpy as np

from pipeline.importance.convergence import convergence
from pipeline.importance.score import decayed, most_important
from tests.support.reference.row_statistics import accumulate, relative_step, settle, taylor_score


def least_first(keys, importance, last_seen_s, half_life_s):
    return most_important(keys, importance, last_seen_s, half_life_s, len(keys))[::-1]


def test_score_is_the_first_order_change_of_a_quadratic_loss():
    weights = np.float32([[0.01, -0.02, 0.03]])
    target = np.float32([1.0, 2.0, -1.0])
    gradient = weights - target
    exact = 0.5 * np.sum(target**2) - 0.5 * np.sum((weights[0] - target) ** 2)
    np.testing.assert_allclose(taylor_score(gradient, weights)[0], abs(exact), rtol=0.02)


def test_score_of_opposite_gradients_is_the_same():
    weights, gradient = np.float32([[1, 2]]), np.float32([[3, 4]])
    assert taylor_score(gradient, weights) == taylor_score(-gradient, weights) == 11


def test_importance_halves_once_per_half_life():
    seen = np.uint32([1_000, 1_000])
    np.testing.assert_array_equal(decayed(np.float32([4, 8]), seen, 1_060, 60.0), [2, 4])
    np.testing.assert_array_equal(decayed(np.float32([4, 8]), seen, 1_000, 60.0), [4, 8])


def test_importance_does_not_grow_backwards_in_time():
    assert decayed(np.float32([4]), np.uint32([1_000]), 0, 60.0)[0] == 4


def test_importance_of_a_row_unseen_since_1970_is_zero_and_not_an_error():
    assert decayed(np.float32([4]), np.uint32([0]), 2**32 - 1, 1.0)[0] == 0


def test_regular_updates_reach_the_sum_of_the_geometric_series():
    importance, seen = np.float32([0]), np.uint32([0])
    for second in range(0, 600, 60):
        importance = accumulate(importance, seen, np.float32([1]), second, 60.0)
        seen = np.uint32([second])
    np.testing.assert_allclose(importance, 2 - 2.0**-9, rtol=1e-6)


def test_least_important_first_compares_at_one_time():
    keys = np.uint64([1, 2])
    order = least_first(keys, np.float32([3, 2]), np.uint32([0, 100]), half_life_s=100)
    assert keys[order].tolist() == [1, 2]


def test_ties_are_broken_by_age_and_then_by_key():
    keys = np.uint64([9, 3, 5, 4])
    order = least_first(keys, np.float32([0, 0, 0, 0]), np.uint32([10, 10, 10, 9]), half_life_s=60)
    assert keys[order].tolist() == [4, 3, 5, 9]


def test_least_important_first_of_nothing_is_nothing():
    assert len(least_first(np.uint64([]), np.float32([]), np.uint32([]), 60.0)) == 0


def test_most_important_returns_at_most_all_rows():
    keys = np.uint64([1, 2, 3])
    order = most_important(keys, np.float32([1, 3, 2]), np.uint32([0, 0, 0]), 60.0, count=5)
    assert keys[order].tolist() == [2, 3, 1]


def test_relative_step_is_one_from_zero_and_zero_for_a_row_that_does_not_move():
    steps, weights = np.float32([[1, 0], [0, 0]]), np.float32([[0, 0], [5, 5]])
    assert relative_step(steps, weights).tolist() == [1, 0]


def test_first_step_sets_the_average_and_later_ones_move_it_by_a_sixteenth():
    first = settle(np.float32([1]), np.float32([0.5]), np.array([True]))
    assert first.tolist() == [0.5]
    assert settle(first, np.float32([0.0]), np.array([False])).tolist() == [0.5 - 0.5 / 16]


def test_a_new_row_has_not_converged_and_a_row_that_does_not_move_has():
    assert convergence(np.float32([1, 0])).tolist() == [0, 1]
