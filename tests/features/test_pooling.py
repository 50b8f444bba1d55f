"""Pooling: sums and means over ragged samples, and the transpose; against NumPy and itself."""

import itertools

import numpy as np
import pipeline._native as _native
import pytest

from pipeline.errors import InputError
from pipeline.features.pooling import pool

SEEDS = range(20)


def ragged(seed, n=37, u=11, dim=5, most=6):
    """A batch with samples of 0 to `most` keys: rows, inverse, offsets."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, most + 1, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    inverse = rng.integers(0, u, offsets[-1]).astype(np.int32)
    return rng.normal(size=(u, dim)).astype(np.float32), inverse, offsets


def unpool(gradient, start, dim, inverse, offsets, mean, u):
    """The native transpose of `pool`, as training calls it inside `ModelInput`: [u, dim]."""
    rows = np.empty((u, dim), np.float32)
    _native.unpool(gradient, start, inverse, offsets, mean, rows)
    return rows


def matrix(inverse, offsets, u, mean):
    """The [n, u] matrix that pooling multiplies rows by."""
    result = np.zeros((len(offsets) - 1, u))
    for i, (first, end) in enumerate(itertools.pairwise(offsets)):
        for j in range(first, end):
            result[i, inverse[j]] += 1 / (end - first) if mean else 1
    return result


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_pool_multiplies_by_the_incidence_matrix(seed, mean):
    rows, inverse, offsets = ragged(seed)
    out = np.full((len(offsets) - 1, 9), 7, np.float32)
    pool(rows, inverse, offsets, mean, out, 3)
    np.testing.assert_allclose(out[:, 3:8], matrix(inverse, offsets, len(rows), mean) @ rows, rtol=1e-5, atol=1e-6)


def test_pool_leaves_the_other_columns_alone():
    rows, inverse, offsets = ragged(0)
    out = np.full((len(offsets) - 1, 9), 7, np.float32)
    pool(rows, inverse, offsets, False, out, 3)
    assert (out[:, :3] == 7).all()
    assert (out[:, 8:] == 7).all()


@pytest.mark.parametrize("mean", [False, True])
def test_sample_without_keys_pools_to_zeros(mean):
    out = np.full((2, 2), 7, np.float32)
    pool(np.float32([[1, 2]]), np.int32([0]), np.int64([0, 0, 1]), mean, out, 0)
    assert out.tolist() == [[0, 0], [1, 2]]


def test_mean_divides_by_the_number_of_keys():
    out = np.zeros((1, 1), np.float32)
    pool(np.float32([[1], [4]]), np.int32([0, 1, 1]), np.int64([0, 3]), True, out, 0)
    assert out[0, 0] == 3


def test_pooling_sums_or_averages_and_gives_zeros_for_no_keys():
    rows, each = np.arange(8, dtype=np.float32).reshape(4, 2), np.arange(4, dtype=np.int32)
    for mean, wanted in ((False, [[0, 0], [6, 9], [0, 0], [6, 7]]), (True, [[0, 0], [2, 3], [0, 0], [6, 7]])):
        out = np.full((4, 2), 7, np.float32)
        pool(rows, each, np.array([0, 0, 3, 3, 4]), mean, out, 0)
        assert out.tolist() == wanted
    pool(rows[:0], each[:0], np.zeros(3, np.int64), True, out[:2], 0)
    assert out[:2].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_unpool_multiplies_by_the_transpose(seed, mean):
    rows, inverse, offsets = ragged(seed)
    gradient = np.random.default_rng(seed + 1).normal(size=(len(offsets) - 1, 9)).astype(np.float32)
    result = unpool(gradient, 3, rows.shape[1], inverse, offsets, mean, len(rows))
    expected = matrix(inverse, offsets, len(rows), mean).T @ gradient[:, 3:8]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mean", [False, True])
def test_unpool_is_the_transpose_exactly_in_whole_numbers(mean):
    rng = np.random.default_rng(5)
    offsets = np.int64([0, 2, 2, 6, 7])  # powers of two, so that means are exact
    inverse = np.int32([0, 1, 1, 1, 2, 0, 2])
    rows, gradient = (rng.integers(-8, 8, size).astype(np.float32) for size in [(3, 4), (4, 4)])
    out = np.zeros((4, 4), np.float32)
    pool(rows, inverse, offsets, mean, out, 0)
    back = unpool(gradient, 0, 4, inverse, offsets, mean, 3)
    assert np.sum(out * gradient) == np.sum(rows * back)


def test_empty_batch_pools_to_nothing_and_back_to_zeros():
    nothing, offsets = np.zeros(0, np.int32), np.int64([0])
    pool(np.zeros((0, 2), np.float32), nothing, offsets, False, np.zeros((0, 2), np.float32), 0)
    assert unpool(np.zeros((0, 2), np.float32), 0, 2, nothing, offsets, False, 3).tolist() == [[0, 0]] * 3


ROWS, INVERSE, OFFSETS = np.zeros((2, 3), np.float32), np.int32([0, 1]), np.int64([0, 1, 2])
OUT = np.zeros((2, 4), np.float32)
BAD_POOLS = {
    "rows by columns": ((np.asfortranarray(ROWS), INVERSE, OFFSETS, OUT, 0), "rows: got float32"),
    "rows of one number": ((np.broadcast_to(np.float32(1), (2**31, 3)), INVERSE, OFFSETS, OUT, 0), "rows: got float32"),
    "2^31 times index 0": ((ROWS, np.broadcast_to(np.int32(0), 2**31), OFFSETS, OUT, 0), "inverse: got int32"),
    "2^31 times offset 0": ((ROWS, INVERSE, np.broadcast_to(np.int64(0), 2**31), OUT, 0), "offsets: got int64"),
    "no rows at all": ((ROWS[:0], INVERSE, OFFSETS, OUT, 0), "inverse: got 0"),
    "a start of nan": ((ROWS, INVERSE, OFFSETS, OUT, float("nan")), "start: got nan"),
    "rows of doubles": ((ROWS.astype(np.float64), INVERSE, OFFSETS, OUT, 0), "rows: got float64"),
    "inverse of longs": ((ROWS, INVERSE.astype(np.int64), OFFSETS, OUT, 0), "inverse: got int64"),
    "offsets of ints": ((ROWS, INVERSE, OFFSETS.astype(np.int32), OUT, 0), "offsets: got int32"),
    "no offsets": ((ROWS, INVERSE, np.zeros(0, np.int64), OUT, 0), "offsets: got none"),
    "negative index": ((ROWS, np.int32([0, -1]), OFFSETS, OUT, 0), "inverse: got -1"),
    "index one too large": ((ROWS, np.int32([0, 2]), OFFSETS, OUT, 0), "inverse: got 2"),
    "offsets that start late": ((ROWS, INVERSE, np.int64([1, 1, 2]), OUT, 0), r"offsets\[0\]: got 1"),
    "offsets that end early": ((ROWS, INVERSE, np.int64([0, 1, 1]), OUT, 0), "last of offsets: got 1, wanted 2"),
    "offsets that step back": ((ROWS, INVERSE, np.int64([0, 3, 2]), OUT, 0), "offsets: got 2, wanted at least 3"),
    "one column too far right": ((ROWS, INVERSE, OFFSETS, OUT, 2), "start: got 2"),
    "start beyond the columns": ((ROWS, INVERSE, OFFSETS, OUT, 5), "start: got 5"),
    "negative start": ((ROWS, INVERSE, OFFSETS, OUT, -1), "start: got -1"),
    "out with too few samples": ((ROWS, INVERSE, OFFSETS, OUT[:1], 0), "out: got float32"),
    "out by columns": ((ROWS, INVERSE, OFFSETS, np.asfortranarray(OUT), 0), "out: got float32"),
}


@pytest.mark.parametrize("name", BAD_POOLS)
def test_pool_refuses(name):
    (rows, inverse, offsets, out, start), message = BAD_POOLS[name]
    with pytest.raises(InputError, match=message):
        pool(rows, inverse, offsets, False, out, start)


def test_pool_accepts_the_last_columns():
    pool(ROWS, INVERSE, OFFSETS, False, OUT.copy(), 1)
    pool(ROWS, INVERSE, OFFSETS, False, OUT.copy(), np.int64(1))


def test_pool_refuses_a_read_only_target():
    out = OUT.copy()
    out.flags.writeable = False
    with pytest.raises(InputError, match="read-only"):
        pool(ROWS, INVERSE, OFFSETS, False, out, 0)


def test_refused_pool_writes_nothing():
    out = np.full((2, 4), 7, np.float32)
    with pytest.raises(InputError):
        pool(ROWS, np.int32([0, 2]), OFFSETS, False, out, 0)
    assert (out == 7).all()


def test_unpool_refuses_an_index_beyond_the_distinct_keys():
    with pytest.raises(ValueError, match="inverse: got 1"):
        unpool(OUT, 0, 3, INVERSE, OFFSETS, False, 1)


@pytest.mark.parametrize("mean", [None, 1, float("nan"), np.array([True, False])])
def test_a_mean_that_is_not_a_bool_is_refused(mean):
    with pytest.raises(InputError, match="mean: got"):
        pool(ROWS, INVERSE, OFFSETS, mean, OUT, 0)


def test_pool_refuses_to_write_over_its_rows():
    shared = np.zeros((2, 4), np.float32)
    with pytest.raises(InputError, match="out: got memory of the rows"):
        pool(shared, INVERSE, OFFSETS, False, shared, 0)


def test_nan_and_infinity_stay_with_their_samples():
    rows = np.float32([[np.nan, np.inf], [1, 2]])
    out = np.zeros((2, 2), np.float32)
    pool(rows, INVERSE, OFFSETS, False, out, 0)
    assert np.isnan(out[0, 0])
    assert np.isinf(out[0, 1])
    assert out[1].tolist() == [1, 2]
    back = unpool(out, 0, 2, INVERSE, OFFSETS, True, 2)
    np.testing.assert_array_equal(back, rows)
