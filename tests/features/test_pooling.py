"""Pooling of ragged samples by every kind, and the transpose; against NumPy and itself."""

import itertools

import numpy as np
import pipeline._native as _native
import pytest

from pipeline.errors import InputError
from pipeline.features.pooling import Pooling, pool
from pipeline.features.weights import NO_WEIGHTS
from tests.support.reference.pooling import pooled, unpooled

SEEDS = range(20)


def ragged(seed, n=37, u=11, dim=5, most=6):
    """A batch with samples of 0 to `most` keys: rows, inverse, offsets."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, most + 1, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    inverse = rng.integers(0, u, offsets[-1]).astype(np.int32)
    return rng.normal(size=(u, dim)).astype(np.float32), inverse, offsets


SUM, MEAN, SQRTN, MAX = map(Pooling, ("sum", "mean", "sqrtn", "max"))
LINEAR = [SUM, MEAN, SQRTN]


def unpool(rows, gradient, start, inverse, offsets, pooling, weights=NO_WEIGHTS):
    """The native transpose of `pool`, as training calls it inside `ModelInput`: [u, dim]."""
    out = np.full(rows.shape, 7, np.float32)
    _native.unpool(rows, gradient, start, inverse, offsets, weights, pooling.kind, pooling.max_length, out)
    return out


def matrix(inverse, offsets, u, pooling, weights=None):
    """The [n, u] matrix that pooling multiplies rows by."""
    result, weights = np.zeros((len(offsets) - 1, u)), np.ones(len(inverse)) if weights is None else weights
    for i, (first, end) in enumerate(itertools.pairwise(offsets)):
        each = weights[first:end].astype(float)
        divisor = {"sum": 1, "mean": each.sum(), "sqrtn": np.sqrt((each**2).sum())}[pooling.kind]
        np.add.at(result[i], inverse[first:end], each / divisor)
    return result


def weights_for(inverse, weighted):
    """A weight for each key, or none."""
    return (1 + np.arange(len(inverse)) % 7 / 2).astype(np.float32) if weighted else NO_WEIGHTS


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pooling", LINEAR)
@pytest.mark.parametrize("seed", SEEDS)
def test_pool_multiplies_by_the_incidence_matrix(seed, pooling, weighted):
    rows, inverse, offsets = ragged(seed)
    weights = weights_for(inverse, weighted)
    out = np.full((len(offsets) - 1, 9), 7, np.float32)
    pool(rows, inverse, offsets, pooling, out, 3, weights)
    wanted = matrix(inverse, offsets, len(rows), pooling, weights if weighted else None) @ rows
    np.testing.assert_allclose(out[:, 3:8], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", [*LINEAR, MAX, Pooling("none", 6), Pooling("none", 8)])
@pytest.mark.parametrize("seed", SEEDS)
def test_pool_and_its_transpose_have_the_bits_of_numpy(seed, pooling):
    rows, inverse, offsets = ragged(seed)
    rows = rows.round(1)  # so that maxima have ties
    out = np.full((len(offsets) - 1, pooling.width(5) + 4), 7, np.float32)
    pool(rows, inverse, offsets, pooling, out, 3)
    np.testing.assert_array_equal(out[:, 3:-1], pooled(rows[inverse], offsets, pooling))
    gradient = np.random.default_rng(seed + 1).normal(size=out.shape).astype(np.float32)
    wanted = unpooled(gradient[:, 3:-1], rows, inverse, offsets, pooling)
    np.testing.assert_array_equal(unpool(rows, gradient, 3, inverse, offsets, pooling), wanted)


def test_pool_leaves_the_other_columns_alone():
    rows, inverse, offsets = ragged(0)
    out = np.full((len(offsets) - 1, 9), 7, np.float32)
    pool(rows, inverse, offsets, SUM, out, 3)
    assert (out[:, :3] == 7).all()
    assert (out[:, 8:] == 7).all()


@pytest.mark.parametrize("pooling", [*LINEAR, MAX])
def test_sample_without_keys_pools_to_zeros(pooling):
    out = np.full((2, 2), 7, np.float32)
    pool(np.float32([[1, 2]]), np.int32([0]), np.int64([0, 0, 1]), pooling, out, 0)
    assert out.tolist() == [[0, 0], [1, 2]]


def test_mean_divides_by_the_number_of_keys():
    out = np.zeros((1, 1), np.float32)
    pool(np.float32([[1], [4]]), np.int32([0, 1, 1]), np.int64([0, 3]), MEAN, out, 0)
    assert out[0, 0] == 3


def test_pooling_sums_or_averages_and_gives_zeros_for_no_keys():
    rows, each = np.arange(8, dtype=np.float32).reshape(4, 2), np.arange(4, dtype=np.int32)
    for pooling, wanted in ((SUM, [[0, 0], [6, 9], [0, 0], [6, 7]]), (MEAN, [[0, 0], [2, 3], [0, 0], [6, 7]])):
        out = np.full((4, 2), 7, np.float32)
        pool(rows, each, np.array([0, 0, 3, 3, 4]), pooling, out, 0)
        assert out.tolist() == wanted
    pool(rows[:0], each[:0], np.zeros(3, np.int64), MEAN, out[:2], 0)
    assert out[:2].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pooling", LINEAR)
@pytest.mark.parametrize("seed", SEEDS)
def test_unpool_multiplies_by_the_transpose(seed, pooling, weighted):
    rows, inverse, offsets = ragged(seed)
    weights = weights_for(inverse, weighted)
    gradient = np.random.default_rng(seed + 1).normal(size=(len(offsets) - 1, 9)).astype(np.float32)
    result = unpool(rows, gradient, 3, inverse, offsets, pooling, weights)
    expected = matrix(inverse, offsets, len(rows), pooling, weights if weighted else None).T @ gradient[:, 3:8]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", [SUM, MEAN])
def test_unpool_is_the_transpose_exactly_in_whole_numbers(pooling):
    rng = np.random.default_rng(5)
    offsets = np.int64([0, 2, 2, 6, 7])  # powers of two, so that means are exact
    inverse = np.int32([0, 1, 1, 1, 2, 0, 2])
    rows, gradient = (rng.integers(-8, 8, size).astype(np.float32) for size in [(3, 4), (4, 4)])
    out = np.zeros((4, 4), np.float32)
    pool(rows, inverse, offsets, pooling, out, 0)
    back = unpool(rows, gradient, 0, inverse, offsets, pooling)
    assert np.sum(out * gradient) == np.sum(rows * back)


def test_empty_batch_pools_to_nothing_and_back_to_zeros():
    nothing, offsets = np.zeros(0, np.int32), np.int64([0])
    pool(np.zeros((0, 2), np.float32), nothing, offsets, SUM, np.zeros((0, 2), np.float32), 0)
    assert (
        unpool(np.zeros((3, 2), np.float32), np.zeros((0, 2), np.float32), 0, nothing, offsets, SUM).tolist()
        == [[0, 0]] * 3
    )


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
        pool(rows, inverse, offsets, SUM, out, start)


def test_pool_accepts_the_last_columns():
    pool(ROWS, INVERSE, OFFSETS, SUM, OUT.copy(), 1)
    pool(ROWS, INVERSE, OFFSETS, SUM, OUT.copy(), np.int64(1))


def test_pool_refuses_a_read_only_target():
    out = OUT.copy()
    out.flags.writeable = False
    with pytest.raises(InputError, match="read-only"):
        pool(ROWS, INVERSE, OFFSETS, SUM, out, 0)


def test_refused_pool_writes_nothing():
    out = np.full((2, 4), 7, np.float32)
    with pytest.raises(InputError):
        pool(ROWS, np.int32([0, 2]), OFFSETS, SUM, out, 0)
    assert (out == 7).all()


def test_unpool_refuses_an_index_beyond_the_distinct_keys():
    with pytest.raises(ValueError, match="inverse: got 1"):
        unpool(ROWS[:1], OUT, 0, INVERSE, OFFSETS, SUM)


def test_a_kind_of_pooling_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="pooling: got median, wanted sum, mean"):
        pool(ROWS, INVERSE, OFFSETS, Pooling("median"), OUT, 0)


def test_weights_and_sequences_that_do_not_fit_are_refused():
    wide = np.zeros((2, 20), np.float32)
    with pytest.raises(InputError, match="weights: got 1, wanted 2, one for each key"):
        pool(ROWS, INVERSE, OFFSETS, MEAN, OUT, 0, np.ones(1, np.float32))
    with pytest.raises(InputError, match="weights: got float64"):
        pool(ROWS, INVERSE, OFFSETS, MEAN, OUT, 0, np.ones(2))
    with pytest.raises(InputError, match="weights: got 2, wanted none for pooling max and none"):
        pool(ROWS, INVERSE, OFFSETS, MAX, OUT, 0, np.ones(2, np.float32))
    with pytest.raises(InputError, match="keys of a sample: got 2, wanted at most 1"):
        pool(ROWS, INVERSE, np.int64([0, 2, 2]), Pooling("none", 1), wide, 0)
    with pytest.raises(InputError, match="start: got 0, wanted room for 2 x 4 of 4 columns"):
        pool(ROWS, INVERSE, OFFSETS, Pooling("none", 2), OUT, 0)
    with pytest.raises(InputError, match="max_length: got 0, wanted 1 or more"):
        pool(ROWS, INVERSE, OFFSETS, Pooling("none"), wide, 0)


def test_pool_refuses_to_write_over_its_rows():
    shared = np.zeros((2, 4), np.float32)
    with pytest.raises(InputError, match="out: got memory of the rows"):
        pool(shared, INVERSE, OFFSETS, SUM, shared, 0)


def test_nan_and_infinity_stay_with_their_samples():
    rows = np.float32([[np.nan, np.inf], [1, 2]])
    out = np.zeros((2, 2), np.float32)
    pool(rows, INVERSE, OFFSETS, SUM, out, 0)
    assert np.isnan(out[0, 0])
    assert np.isinf(out[0, 1])
    assert out[1].tolist() == [1, 2]
    back = unpool(rows, out, 0, INVERSE, OFFSETS, MEAN)
    np.testing.assert_array_equal(back, rows)
