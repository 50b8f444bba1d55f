"""What sending rows is worth and their bytes: the native batch against the same rule row by row; invalid input."""

from itertools import pairwise

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.publish.price.priced_rows import SKIP, ServedRows, quantize, score_rows
from pipeline.versions.deltas.quantizer import PRECISIONS, decode
from tests.versions.deltas.test_integers import LIMITS, stored

UNIT = 2.0**-9


def fitting(row, exponent, bits):
    return np.abs(row).max() <= np.float64(LIMITS[bits]) * 2.0**exponent


def grid_of(row, served_bits, served_exponent, curvature, unit):
    """(bits, exponent) by the documented rule."""
    wanted = int(np.clip(np.floor(np.log2(unit / curvature) / 2 + 0.5), -126, 112)) if curvature else 112
    while not fitting(row, wanted, 16):
        wanted += 1
    served_exponent = int(served_exponent)
    kept = served_bits in LIMITS and abs(served_exponent - wanted) <= 1 and fitting(row, served_exponent, 16)
    exponent = served_exponent if kept else wanted
    most = np.abs(row).max() * 2.0**-exponent
    least = 4 if most <= 7 else 8 if most <= 127 else 16
    return (max(least, int(served_bits)) if kept else least), exponent


def sent_of(row, served, served_bits, served_exponent, curvature, unit=UNIT):
    """(bits, payload) of one row, and whether it improves what serving holds."""
    bits, exponent = grid_of(row, served_bits, served_exponent, curvature, unit)
    payload = stored(row, bits, exponent)
    near = decode(payload, np.uint8([bits]), len(row))[0]
    improves = np.linalg.norm((row - near).astype(np.float64)) < np.linalg.norm((row - served).astype(np.float64))
    return bits, payload, bool(improves)


def case(dim, n=400, seed=0):
    """Weights, served rows and curvatures; rows from far apart to nearly equal."""
    random = np.random.default_rng([seed, dim])
    weights = random.normal(0, 0.05, (n, dim)).astype(np.float32)
    weights[random.random(n) < 0.1] = 0
    served_bits = random.choice(np.uint8([0, *PRECISIONS]), n)
    moved = (10.0 ** random.uniform(-6, 0, (n, 1)) * random.normal(0, 0.05, (n, dim))).astype(np.float32)
    served = np.where(served_bits[:, None] > 0, weights + moved, 0).astype(np.float32)
    exponents = np.where(served_bits == 16, -15, np.where(served_bits == 8, -10, -7)) + random.integers(-2, 3, n)
    curvature = (10.0 ** random.uniform(-3, 8, n)).astype(np.float32)
    curvature[random.random(n) < 0.05] = 0
    return weights, ServedRows(served, served_bits, exponents.astype(np.int8)), curvature


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8, 16, 33, 200])
def test_a_batch_equals_its_rows_one_by_one(dim):
    weights, served, curvature = case(dim)
    bits, payload = quantize(weights, served, curvature, UNIT)
    scores = score_rows(weights, served, curvature, UNIT)
    wanted = [sent_of(*row) for row in zip(weights, *served, curvature, strict=True)]
    sent = [improves or not known for (_, _, improves), known in zip(wanted, served.bits, strict=True)]
    assert {SKIP, 4, 8, 16} <= set(bits.tolist())
    assert bits.tolist() == [each if out else SKIP for (each, _, _), out in zip(wanted, sent, strict=True)]
    assert payload.tobytes() == b"".join(row.tobytes() for (_, row, _), out in zip(wanted, sent, strict=True) if out)
    assert scores.improves.tolist() == [improves for _, _, improves in wanted]


def test_worth_is_what_sending_takes_off_half_the_curvature_times_the_squared_error():
    weights, served, curvature = case(16)
    scores = score_rows(weights, served, curvature, UNIT)
    for i, row in enumerate(weights):
        bits, payload, improves = sent_of(row, *(part[i] for part in served), curvature[i])
        near = decode(payload, np.uint8([bits]), 16)[0].astype(np.float64)
        before, after = (
            float(((row - held) ** 2).sum()) * float(curvature[i]) / 2 for held in (served.weights[i], near)
        )
        assert scores.worth[i] == pytest.approx(before - after if improves else 0, rel=1e-3, abs=1e-6 * before)
        assert scores.error[i] == pytest.approx(before, rel=1e-4)
        assert scores.missing[i] == pytest.approx((row**2).sum() * curvature[i] / 2, rel=1e-4)


def test_a_step_is_the_power_of_two_nearest_to_the_root_of_unit_over_curvature():
    row = np.full((1, 16), 0.05, np.float32)
    none = ServedRows(row * 0, np.uint8([0]), np.int8([0]))
    for exponent in (-12, -9, -6):
        for factor in (1 / np.sqrt(2) * 1.01, 1, np.sqrt(2) * 0.99):
            step = np.float32([2.0**exponent * factor])
            _, payload = quantize(row, none, np.float32([1]) / step**2, 1.0)
            assert payload[:1].view(np.int8)[0] == exponent


def test_a_row_keeps_its_step_until_it_is_off_by_more_than_a_factor_of_two():
    row = np.full((1, 16), 0.05, np.float32)
    served = ServedRows(row * 2, np.uint8([8]), np.int8([-9]))
    for exponent, kept in ((-11, -11), (-10, -9), (-9, -9), (-8, -9), (-7, -7)):
        _, payload = quantize(row, served, np.float32([1]), 4.0**exponent)
        assert payload[:1].view(np.int8)[0] == kept


@pytest.mark.parametrize("dim", [1, 3, 8, 16])
def test_a_row_that_finer_steps_bring_no_closer_is_brought_no_closer_by_coarser_ones(dim):
    weights, served, curvature = case(dim, n=20_000)
    units = [0.0, *(2.0**e for e in range(-20, 12, 2))]
    improved = [score_rows(weights, served, curvature, unit).improves for unit in units]
    assert improved[0].mean() > improved[-1].mean() > 0
    for finer, coarser in pairwise(improved):
        assert not (coarser & ~finer).any()


def test_a_difference_costs_less_than_a_row_and_a_new_row_its_key_as_well():
    weights = np.full((1, 16), 0.05, np.float32)
    bits, payload = quantize(weights, ServedRows(weights * 0, np.uint8([0]), np.int8([0])), np.float32([1e4]), UNIT)
    known = ServedRows(decode(payload, bits, 16), bits, payload[:1].view(np.int8))
    moved = weights + np.float32(3e-4)
    costs = [
        float(score_rows(moved, served, np.float32([1e4]), UNIT).cost_bytes[0])
        for served in (
            known,
            known._replace(exponents=known.exponents + np.int8(5)),
            known._replace(bits=np.uint8([0])),
        )
    ]
    assert costs[0] < costs[1] < costs[2] - 6


def test_a_row_without_curvature_is_worth_nothing():
    weights = np.full((2, 8), 0.05, np.float32)
    served = ServedRows(np.zeros((2, 8), np.float32), np.uint8([0, 8]), np.int8([0, -9]))
    scores = score_rows(weights, served, np.zeros(2, np.float32), UNIT)
    assert scores.worth.tolist() == scores.error.tolist() == [0, 0]
    bits, payload = quantize(weights, served, np.zeros(2, np.float32), UNIT)
    assert bits.tolist() == [4, SKIP]
    assert not decode(payload, bits[:1], 8).any()


def test_finest_steps_are_those_of_sixteen_bits():
    weights, served, curvature = case(16)
    bits, payload = quantize(weights, served._replace(bits=np.zeros_like(served.bits)), curvature, 0.0)
    near = decode(payload, bits, 16)
    moving = curvature > 0
    assert np.abs(near - weights)[moving].max() < 1e-5


def test_rows_inside_packed_rows_give_the_same():
    weights, *rest = case(16)
    packed = np.zeros(len(weights), [("weights", "<f4", 16), ("count", "<u4")])
    packed["weights"] = weights
    for call in (quantize, score_rows):
        for one, two in zip(call(packed["weights"], *rest, UNIT), call(weights, *rest, UNIT), strict=True):
            assert one.tobytes() == two.tobytes()


def test_zero_rows_give_zero_bytes():
    weights, served, curvature = case(4)
    none = ServedRows(*(part[:0] for part in served))
    bits, payload = quantize(weights[:0], none, curvature[:0], UNIT)
    assert (len(bits), len(payload)) == (0, 0)
    assert len(score_rows(weights[:0], none, curvature[:0], UNIT).worth) == 0


@pytest.mark.parametrize("place", [0, 127, 128, 399])
@pytest.mark.parametrize("weight", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_with_its_row(place, weight):
    weights, *rest = case(16)
    weights[place, 7] = weight
    for call in (quantize, score_rows):
        with pytest.raises(InputError, match=f"weights: got one that is not finite in row {place}, wanted finite ones"):
            call(weights, *rest, UNIT)


def test_the_largest_finite_weights_and_curvatures_are_accepted():
    weights, served, curvature = case(16)
    weights[:], curvature[::2] = np.finfo(np.float32).max, np.finfo(np.float32).max
    assert set(quantize(weights, served, curvature, UNIT)[0].tolist()) <= {SKIP, *PRECISIONS}
    for losses in score_rows(weights, served, curvature, UNIT)[1:]:
        assert np.isfinite(losses).all()
        assert (losses >= 0).all()


def test_odd_arrays_are_refused_by_name():
    weights, served, curvature = case(4, n=6)
    rows, bits, exponents = served

    def refused(name, weights=weights, served=served, curvature=curvature, unit=UNIT):
        with pytest.raises(InputError, match=f"{name}: got "):
            quantize(weights, served, curvature, unit)
        with pytest.raises(InputError, match=f"{name}: got "):
            score_rows(weights, served, curvature, unit)

    for odd in (weights.tolist(), weights.astype(np.float64), weights[:, ::2], weights[:5], weights.ravel()):
        refused("weights", weights=odd)
    for odd in (rows[:, ::-1], rows.astype(np.float16), rows[0], np.broadcast_to(rows[:1], (2**31, 4))):
        refused("served", served=ServedRows(odd, bits, exponents))
    for odd in (bits[::-1], bits.astype(np.int64), bits[:5], np.full(6, 3, np.uint8)):
        refused("served_bits", served=ServedRows(rows, odd, exponents))
    refused("served_exponents", served=ServedRows(rows, bits, exponents.astype(np.int16)))
    for odd in (curvature[:5], curvature.astype(np.float64), -curvature - 1, curvature * np.float32(np.nan)):
        refused("curvature", curvature=odd)
    for odd in (-1.0, float("nan")):
        refused("unit", unit=odd)
