"""Live importance of inputs: its formula, what it decays by, and that the log alone decides it."""

import json

import numpy as np
import pytest

from pipeline.errors import DamagedError
from pipeline.importance.fields.inputs import InputColumns
from pipeline.importance.fields.live import EVERY, LiveImportance

COLUMNS = InputColumns(("user", "item", "also_item", "price"), (3, 2, 2, 1), {"user": (0,), "item": (1, 2)})
HALF_LIFE_S = 100.0


def importance(columns: InputColumns = COLUMNS) -> LiveImportance:
    return LiveImportance(columns, HALF_LIFE_S)


def batch(rows: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    inputs = random.normal(1, 1, (rows, 8)).astype(np.float32)
    gradient = random.normal(0, 0.1, (rows, 8)).astype(np.float32)
    return inputs, gradient, random.uniform(0.5, 2, rows).astype(np.float32)


def expected(inputs, gradient, weight, columns: slice) -> float:
    """The two terms in the words of the module's docstring, for one batch that is scored completely."""
    s = ((inputs - inputs.mean(axis=0)) * gradient)[:, columns].sum(axis=1).astype(np.float64)
    return float((-s.sum() + (s * s / weight).sum()) / weight.sum())


def means(live: LiveImportance) -> dict[str, float]:
    return {name: each.mean for name, each in live.of_inputs().items()}


def scored(inputs, gradient, weight) -> LiveImportance:
    """After samples that are all scored: each fills the places between it and the next with copies of itself."""
    live = importance()
    live.learned(*(np.repeat(a, EVERY, axis=0) for a in (inputs, gradient, weight)), 0, 0)
    return live


def test_importance_is_first_order_rise_plus_mean_square_of_centred_input_along_the_gradient():
    inputs, gradient, weight = batch(50)
    values = means(scored(inputs, gradient, weight))
    for name, part in zip(COLUMNS.names, COLUMNS.slices, strict=True):
        assert values[name] == pytest.approx(expected(inputs, gradient, weight, part), rel=1e-4)


def test_fields_of_one_table_count_together_and_a_field_alone_counts_as_its_table():
    inputs, gradient, weight = batch(50)
    live = scored(inputs, gradient, weight)
    assert live.of_tables()["item"].mean == pytest.approx(expected(inputs, gradient, weight, slice(3, 7)), rel=1e-4)
    assert live.of_tables()["user"] == live.of_inputs()["user"]


def test_importance_is_the_rise_of_a_logistic_loss_when_a_field_is_shuffled():
    """A calibrated linear model, whose rise is known by shuffling; gradients are those of the logistic loss."""
    random, weights = np.random.default_rng(2), np.float32([0.7, 0.35, 0.15, 0.0])
    columns = InputColumns(("a", "b", "c", "d"), (1, 1, 1, 1), {})
    x = random.normal(size=(160_000, 4)).astype(np.float32)
    clicked = random.random(len(x)) < 1 / (1 + np.exp(-(x @ weights - 1)))
    gradient = (1 / (1 + np.exp(-(x @ weights - 1))) - clicked)[:, None] * weights
    live = importance(columns)
    live.learned(x, gradient.astype(np.float32), np.ones(len(x), np.float32), 0, 0)

    def loss(inputs):
        z = inputs @ weights - 1
        return float(np.mean(np.logaddexp(0, np.where(clicked, -z, z))))

    for place, name in enumerate(columns.names):
        shuffled = x.copy()
        shuffled[:, place] = random.permutation(x[:, place])
        assert means(live)[name] == pytest.approx(loss(shuffled) - loss(x), rel=0.15, abs=5e-4)


def test_an_input_without_a_gradient_has_no_importance():
    inputs, gradient, weight = batch(40)
    gradient[:, COLUMNS.slices[3]] = 0
    assert means(scored(inputs, gradient, weight))["price"] == 0


def test_importance_does_not_depend_on_the_unit_of_weights():
    inputs, gradient, weight = batch(40)
    heavy = means(scored(inputs, gradient * 4, weight * 4))
    assert heavy == pytest.approx(means(scored(inputs, gradient, weight)), rel=1e-5)


def test_the_interval_covers_the_mean_of_many_samples_about_as_often_as_it_promises():
    truth, covered = means(scored(*batch(40_000, seed=9)))["user"], []
    for seed in range(100):
        live = importance()
        live.learned(*batch(400 * EVERY, seed=100 + seed), 0, 0)
        estimate = live.of_inputs()["user"]
        covered.append(estimate.low <= truth <= estimate.high)
    assert np.mean(covered) > 0.85


def test_batches_of_a_half_life_ago_count_half():
    inputs, gradient, _ = batch(4_000)
    live, ones = importance(), np.ones(4_000, np.float32)
    live.learned(inputs, gradient, ones, 0, 1_000)
    before, alone = live.to_bytes(), means(live)["user"]
    live.learned(inputs, gradient * 0, ones, 0, 1_000 + int(HALF_LIFE_S))
    assert means(live)["user"] == pytest.approx(alone / 3, rel=1e-5)  # half of the old, all of the new
    live.load(before)
    live.learned(inputs, gradient * 0, ones, 0, 1_000)
    assert means(live)["user"] == pytest.approx(alone / 2, rel=1e-5)


def test_which_samples_are_scored_depends_on_their_place_in_the_log_only():
    inputs, gradient, weight = batch(100)
    pieces, whole = importance(), importance()
    kept = np.arange(0, 100, EVERY)
    whole.learned(inputs, gradient, weight, 0, 0)
    for start, stop in ((0, 3), (3, 4), (4, 71), (71, 100)):
        pieces.learned(inputs[start:stop], gradient[start:stop], weight[start:stop], start, 0)
    for live in (whole, pieces):
        assert json.loads(live.to_bytes())["sums"]["user/3"][2] == pytest.approx(weight[kept].sum(), rel=1e-12)


def test_rows_after_the_last_sample_of_a_batch_have_no_effect():
    inputs, gradient, weight = batch(16)
    longer = np.concatenate([inputs, np.full((16, 8), 1e30, np.float32)])
    live, same = importance(), importance()
    live.learned(longer, gradient, weight, 0, 0)
    same.learned(inputs, gradient, weight, 0, 0)
    assert live.to_bytes() == same.to_bytes()


def test_state_continues_to_the_bit():
    live, restored = importance(), importance()
    live.learned(*batch(50, 1), 0, 100)
    restored.load(live.to_bytes())
    for each in (live, restored):
        each.learned(*batch(50, 2), 50, 170)
    assert restored.to_bytes() == live.to_bytes()
    assert means(restored) == means(live)


def test_a_new_width_or_a_new_set_of_fields_of_a_table_starts_empty():
    live = importance()
    live.learned(*batch(50), 0, 100)
    other = importance(InputColumns(("user", "item", "place", "price"), (3, 1, 2, 1), {"user": (0,), "item": (1, 2)}))
    other.load(live.to_bytes())
    values, kept = means(other), means(live)
    assert {name: values[name] for name in ("user", "price")} == {name: kept[name] for name in ("user", "price")}
    assert set(values) == {"user", "price"}
    assert set(other.of_tables()) == {"user"}


def test_nothing_is_known_before_the_first_sample():
    assert importance().of_inputs() == importance().of_tables() == {}


@pytest.mark.parametrize("state", [b"", b"{}", b"[]", b'{"format":2}', b'{"format":1,"at_s":"x","mean_samples":0}'])
def test_damaged_state_is_refused(state):
    with pytest.raises(DamagedError, match="importance of fields"):
        importance().load(state)


def test_a_row_of_mixed_widths_is_multiplied_within_each_input():
    a, b, _ = batch(5)
    wanted = np.stack([(a[:, part] * b[:, part]).sum(axis=1) for part in COLUMNS.slices], axis=1)
    np.testing.assert_allclose(COLUMNS.dot(a, b), wanted, rtol=1e-5)
