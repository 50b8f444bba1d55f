"""Permutation importance and Shapley values on models whose answers are known."""

import numpy as np
import pytest

from pipeline.importance.fields.estimate import Estimate, others
from pipeline.importance.fields.footprint import TableSize, footprints
from pipeline.importance.fields.permutation import evaluations, rise_when_shuffled
from pipeline.importance.fields.shapley import evaluations as shapley_evaluations
from pipeline.importance.fields.shapley import shapley_values

COLUMNS = [slice(0, 1), slice(1, 3), slice(3, 4)]
RANDOM = np.random.default_rng(4)
INPUTS = RANDOM.normal(size=(4_000, 4)).astype(np.float32)
NOISE = RANDOM.normal(0, 0.1, len(INPUTS))


def squared(model):
    """The squared error of `model` on targets that it predicts up to noise."""
    targets = model(INPUTS) + NOISE
    return lambda inputs: (model(inputs) - targets) ** 2


def linear(inputs):
    return inputs.astype(np.float64) @ [2.0, 1.0, 1.0, 0.0]


def product(inputs):
    return inputs[:, 0].astype(np.float64) * inputs[:, 3]


def counted() -> tuple[list[int], object]:
    calls: list[int] = []
    return calls, lambda: calls.append(1)


def rises(losses, repeats=3, seed=1):
    return rise_when_shuffled(INPUTS, losses, [[part] for part in COLUMNS], repeats, seed, lambda: None)


def test_shuffling_costs_twice_the_variance_that_an_input_explains():
    estimates = [Estimate.of(each) for each in rises(squared(linear))]
    for estimate, variance in zip(estimates, (4.0, 2.0, 0.0), strict=True):
        assert estimate.mean == pytest.approx(2 * variance, rel=0.06, abs=1e-12)


def test_an_interval_covers_the_truth_about_as_often_as_it_promises():
    random = np.random.default_rng(0)
    found = [Estimate.of(random.normal(1, 2, 400)) for _ in range(400)]
    assert 0.92 < np.mean([each.low <= 1 <= each.high for each in found]) < 0.98


def test_inputs_of_a_group_keep_the_values_they_have_together():
    losses = squared(product)
    together = rise_when_shuffled(INPUTS, losses, [[COLUMNS[0], COLUMNS[2]]], 3, 1, lambda: None)
    alone = rises(losses)
    # Both factors from one other sample: 2 Var(product) = 2; one factor from another sample: the same variance.
    assert Estimate.of(together[0]).mean == pytest.approx(2, rel=0.15)
    assert Estimate.of(alone[0]).mean == pytest.approx(2, rel=0.15)
    assert Estimate.of(alone[1]).mean == 0


def test_shapley_values_of_a_sample_add_up_to_what_all_inputs_take_away():
    losses = squared(product)
    values = shapley_values(INPUTS, losses, COLUMNS, 1, 3, lambda: None)
    donors = others(np.random.default_rng([3, 2]), len(INPUTS))
    np.testing.assert_allclose(values.sum(axis=0), losses(INPUTS[donors]) - losses(INPUTS), atol=1e-9)


def test_two_inputs_that_only_work_together_share_their_value():
    values = [Estimate.of(each) for each in shapley_values(INPUTS, squared(product), COLUMNS, 4, 1, lambda: None)]
    # Another sample's product costs 2, and neither factor alone takes anything away: 1 for each of them.
    assert values[0].mean == pytest.approx(1, abs=0.2)
    assert values[2].mean == pytest.approx(1, abs=0.2)
    assert values[1].mean == 0


def test_an_input_that_the_model_does_not_read_has_no_value():
    values = shapley_values(INPUTS, squared(linear), COLUMNS, 2, 1, lambda: None)
    assert (values[2] == 0).all()
    assert (rises(squared(linear))[2] == 0).all()


def test_the_seed_decides_the_numbers_and_the_inputs_stay_as_they_are():
    before, losses = INPUTS.copy(), squared(linear)
    assert (rises(losses, seed=7) == rises(losses, seed=7)).all()
    assert (rises(losses, seed=7) != rises(losses, seed=8)).any()
    np.testing.assert_array_equal(INPUTS, before)


def test_the_number_of_evaluations_is_known_beforehand():
    calls, advance = counted()
    rise_when_shuffled(INPUTS, squared(linear), [[part] for part in COLUMNS], 3, 1, advance)
    assert len(calls) == evaluations(3, 3)
    calls.clear()
    shapley_values(INPUTS, squared(linear), COLUMNS, 2, 1, advance)
    assert len(calls) == shapley_evaluations(3, 2)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_every_sample_gets_the_values_of_another_one(n):
    found = others(np.random.default_rng(1), n)
    assert sorted(found) == list(range(n))
    assert (found != np.arange(n)).all()


def test_a_table_of_its_own_belongs_to_its_field_and_a_shared_one_by_the_keys_that_no_other_field_reads():
    keys = {"user": np.uint64([1, 1, 2]), "item": np.uint64([1, 2, 3, 4]), "seen": np.uint64([3, 4, 5])}
    tables, size = {"user": ["user"], "items": ["item", "seen"]}, TableSize(100, 8_400, 1_000)
    found = footprints(keys, tables, {"user": size, "items": size})
    assert (found["user"].rows, found["user"].row_bytes, found["user"].served_bytes) == (100, 8_400, 1_000)
    assert not found["user"].estimated
    assert (found["item"].rows, found["seen"].rows) == (40, 20)  # 2 and 1 of 5 keys
    assert found["item"].estimated
    assert [each.lookups for each in found.values()] == [0.3, 0.4, 0.3]


def test_fields_without_a_key_in_the_samples_have_a_footprint_of_nothing_in_a_shared_table():
    none = np.empty(0, np.uint64)
    found = footprints({"a": none, "b": none}, {"t": ["a", "b"]}, {"t": TableSize(5, 50, 5)})
    assert (found["a"].rows, found["a"].lookups) == (0, 0.0)
