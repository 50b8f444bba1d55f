"""The price of a byte: what follows from the loss allowed, and its correction by measurements."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.publish.price.byte_price import Price
from pipeline.publish.price.loss_sample import LossSample, price_of_loss, row_share, sampled_rows
from pipeline.publish.price.priced_rows import RowScores

SHARE = 0.0002


def lost(price: float, missing: np.ndarray, share: float) -> float:
    """What rows lose together at a price."""
    return float(np.minimum(missing, share * price).sum())


def test_at_the_price_all_rows_together_lose_what_is_allowed():
    random = np.random.default_rng(1)
    tables, shares = [10 ** random.normal(0, 2, n) for n in (1, 50, 3_000)], [row_share(dim) for dim in (1, 8, 64)]
    total = sum(rows.sum() for rows in tables)
    for part in (1e-9, 1e-3, 0.2, 0.9, 0.999999):
        price = price_of_loss(tables, shares, part * total)
        assert sum(map(lost, [price] * 3, tables, shares)) == pytest.approx(part * total, rel=1e-9)


def test_if_every_row_may_be_lost_the_price_is_that_of_the_last_one():
    missing = [np.array([3.0, 12.0])]
    assert price_of_loss(missing, [2.0], 15.0) == price_of_loss(missing, [2.0], 1e9) == 6.0


def test_without_a_loss_or_rows_bytes_cost_nothing():
    assert price_of_loss([np.array([3.0, 12.0])], [2.0], 0.0) == 0
    assert price_of_loss([np.empty(0)], [2.0], 5.0) == price_of_loss([], [], 5.0) == 0
    assert price_of_loss([np.zeros(4)], [2.0], 5.0) == 0


def test_the_loss_allowed_is_a_share_of_the_trainers_before_the_correction():
    assert Price(correction=4.0).allowed(SHARE, 1e6) == pytest.approx(50)
    assert Price().allowed(SHARE, -3.0) == 0


@pytest.mark.parametrize(("per_byte", "for_steps"), [(1.99, 1.0), (2.0, 1.0), (2.01, 2.01), (0.5, 1.0), (0.49, 0.49)])
def test_steps_stay_until_their_price_is_off_by_more_than_a_factor_of_two(per_byte, for_steps):
    assert Price(for_steps=1.0).at(per_byte) == Price(per_byte=per_byte, for_steps=for_steps)


def test_the_correction_comes_to_what_is_measured_over_what_is_estimated():
    random, price = np.random.default_rng(2), Price(estimate=SHARE)
    for _ in range(300):
        price = price.corrected(3 * SHARE * random.gamma(4, 1 / 4), SHARE)
    assert price.predicted == pytest.approx(3 * SHARE, rel=0.4)


def test_the_scale_of_dense_weights_comes_to_what_they_lose_whatever_rows_lose():
    random, rounding, true_scale = np.random.default_rng(3), 1e-5, 11.0
    price = Price()
    for _ in range(300):
        dense = price.dense_scale * rounding
        price = price.estimated(SHARE / 2 + dense, None, dense)
        measured = true_scale * rounding * random.gamma(4, 1 / 4)
        price = price.corrected(3 * SHARE / 2 + measured, SHARE, measured)
    assert price.correction * price.dense_scale == pytest.approx(true_scale, rel=0.4)
    assert price.predicted == pytest.approx(3 * SHARE / 2 + true_scale * rounding, rel=0.4)


def test_dense_weights_that_are_exact_or_not_measured_leave_their_scale():
    price = Price(estimate=SHARE, correction=2.0, dense_estimate=SHARE / 4)
    assert price.corrected(SHARE, SHARE).dense_scale == price.dense_scale
    assert replace(price, dense_estimate=0.0).corrected(SHARE, SHARE, dense=SHARE).dense_scale == price.dense_scale
    assert price.corrected(SHARE, SHARE, dense=SHARE / 4).dense_scale == pytest.approx(price.dense_scale * 15 / 16)


def test_rows_of_one_table_may_lose_different_shares():
    missing, shares = np.array([2.0, 12.0, 30.0]), np.array([1.0, 3.0, 5.0])
    apart = price_of_loss([missing[:1], missing[1:2], missing[2:]], [1.0, 3.0, 5.0], allowed=18.0)
    assert price_of_loss([missing], [shares], allowed=18.0) == apart
    assert np.minimum(missing, shares * apart).sum() == pytest.approx(18)


def test_the_price_follows_until_the_loss_is_the_one_allowed():
    random, price, missing = np.random.default_rng(5), Price(), [10 ** np.random.default_rng(6).normal(0, 2, 1_000)]
    for _ in range(200):
        price = price.at(price_of_loss(missing, [20.0], price.allowed(SHARE, 1e6)))
        price = price.estimated(0.3 * lost(price.per_byte, missing[0], 20.0) / 1e6 * random.gamma(100, 1 / 100), SHARE)
    assert price.predicted == pytest.approx(SHARE, rel=0.3)
    assert price.fit == pytest.approx(0.3, rel=0.3)


def test_one_measurement_moves_the_correction_a_little_and_it_stays_in_its_bounds():
    price = Price(estimate=SHARE)
    assert price.corrected(1.0, SHARE).correction == 1 + 3 / 8
    assert price.corrected(0.0, SHARE).correction == 1 - 1 / 8
    for measured, bound in ((1.0, 32), (0.0, 1 / 32)):
        for _ in range(100):
            price = replace(price.corrected(measured, SHARE), estimate=SHARE * 100)
        assert price.correction == bound


def test_a_measurement_counts_only_if_something_is_withheld():
    for estimate, moves in ((0.0, False), (SHARE / 4, False), (SHARE / 3, True)):
        price = Price(estimate=estimate)
        assert (price.corrected(SHARE, SHARE) != price) == moves


def test_a_price_is_the_same_from_its_numbers():
    price = Price(0.5, 0.25, 1.5, 0.0001, 0.75, 3)
    assert Price.of(price.numbers()) == price
    assert Price.of({}) == Price()


def scored(keys: np.ndarray, error: float, seen_s: int) -> LossSample:
    scores = RowScores.empty(len(keys))
    scores.missing[:], scores.error[:] = 8, error
    rows = np.zeros(len(keys), [("last_seen_s", "<u4")])
    rows["last_seen_s"] = seen_s
    return LossSample.of(keys, rows, scores, 0)


def test_a_sample_agrees_with_a_dict():
    random, sample, model = np.random.default_rng(3), LossSample.empty(), {}
    for step in range(200):
        keys = np.unique(random.integers(0, 300, random.integers(0, 60)).astype(np.uint64))
        if step % 3:
            sample = sample.updated(scored(keys, step, step))
            model |= dict.fromkeys(keys.tolist(), (step, step))
        else:
            sample = sample.without(keys)
            model = {key: each for key, each in model.items() if key not in set(keys.tolist())}
        entries = sample.entries
        assert entries["key"].tolist() == sorted(model)
        assert list(zip(entries["error"].tolist(), entries["seen_s"].tolist(), strict=True)) == [
            model[key] for key in sorted(model)
        ]


def test_a_halved_sample_holds_the_keys_below_half_the_range():
    keys = np.sort(np.random.default_rng(4).integers(0, 2**64, 10_000, np.uint64))
    sample = scored(keys, 1, 0)
    for halvings in (1, 3, 5):
        below = keys[keys < 2 ** (64 - halvings)]
        assert sample.halved(halvings).entries["key"].tolist() == below.tolist()
        assert sampled_rows(keys, halvings) == len(below)
        assert abs(len(below) / len(keys) * 2**halvings - 1) < 0.2


def test_losses_of_sampled_rows_halve_with_each_half_life():
    missing, error = scored(np.uint64([1, 2]), 4, 100).losses(120, half_life_s=10.0)
    assert (missing.tolist(), error.tolist()) == ([2, 2], [1, 1])
