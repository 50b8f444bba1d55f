"""The sample of a field's rows that importance and convergence quantiles are taken from."""

import numpy as np
import pytest

from pipeline.importance.sample import RowSample, quantiles

ROWS = np.dtype([("importance", "<f4"), ("last_seen_s", "<u4"), ("unsettled", "<f4")])


def rows_of(importance):
    rows = np.zeros(len(importance), ROWS)
    rows["importance"], rows["unsettled"] = importance, 0.25
    return rows


def no_keys():
    return np.empty(0, np.uint64)


def test_a_small_table_is_in_the_sample_completely():
    sample = RowSample(max_rows=3)
    sample.apply(np.uint64([5, 7, 9]), rows_of([1, 2, 3]), no_keys())
    assert sorted(sample.importance(0, 10)) == [1, 2, 3]
    assert sample.convergence().tolist() == [0.75] * 3


def test_one_row_too_many_leaves_out_the_largest_key_for_good():
    sample = RowSample(max_rows=3)
    sample.apply(np.uint64([5, 6, 7, 9]), rows_of([1, 2, 3, 4]), no_keys())
    assert sorted(sample.importance(0, 10)) == [1, 2, 3]
    sample.apply(np.uint64([8]), rows_of([5]), np.uint64([5]))  # the bound is 7: room does not bring 8 in
    assert sorted(sample.importance(0, 10)) == [2, 3]


def test_a_change_replaces_a_row_and_a_removed_one_that_comes_back_counts_once():
    sample = RowSample()
    sample.apply(np.uint64([5, 7]), rows_of([1, 2]), no_keys())
    sample.apply(np.uint64([7]), rows_of([8]), np.uint64([5]))
    assert sample.importance(0, 10).tolist() == [8]
    sample.apply(np.uint64([5]), rows_of([3]), no_keys())
    assert sorted(sample.importance(0, 10)) == [3, 8]


def test_importance_is_decayed_to_the_requested_time():
    sample = RowSample()
    rows = rows_of([8, 8])
    rows["last_seen_s"] = [100, 110]
    sample.apply(np.uint64([1, 2]), rows, no_keys())
    assert sample.importance(110, 10).tolist() == [4, 8]


def test_commits_in_a_row_leave_the_sample_of_a_full_scan():
    random, sample, table = np.random.default_rng(1), RowSample(max_rows=64), {}
    bound = 2**64 - 1
    for step in range(200):
        touched = np.unique(random.integers(0, 2**64, random.integers(0, 40), np.uint64))
        removed = random.choice(np.fromiter(table, np.uint64, len(table)), min(len(table), 15), replace=False)
        removed = np.sort(removed[~np.isin(removed, touched)])
        importance = np.full(len(touched), step, np.float32)
        for key in removed.tolist():
            del table[key]
        table.update(zip(touched.tolist(), importance.tolist(), strict=True))
        sample.apply(touched, rows_of(importance), removed)
        if random.random() < 0.3:  # a read merges what is pending; the sample does not depend on that
            below = sorted(key for key in table if key <= bound)
            if len(below) > 64:
                bound = below[63]
            assert sample.importance(0, 10).tolist() == [table[key] for key in below[:64]], step


def test_quantiles_of_the_sample_are_close_to_those_of_the_table():
    random, sample = np.random.default_rng(2), RowSample()
    keys = np.sort(np.unique(random.integers(0, 2**64, 200_000, np.uint64)))
    importance = random.exponential(size=len(keys)).astype(np.float32)
    for part in range(10):  # by commits, each of rows from all over the table
        sample.apply(keys[part::10], rows_of(importance[part::10]), no_keys())
    assert len(sample) == 2_048
    sampled = quantiles(sample.importance(0, 10), [0.1, 0.5, 0.9])
    true = quantiles(importance.astype(np.float64), [0.1, 0.5, 0.9])
    assert list(sampled.values()) == pytest.approx(list(true.values()), rel=0.15)


def test_no_rows_have_no_quantiles():
    assert quantiles(np.empty(0), [0.5]) == {}
