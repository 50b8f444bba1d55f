"""Which rows are sent at which precision: the native batch against the same rule row by row; invalid input."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.publish.precision import COARSER_GAIN, SKIP, quantize, sent_precision, warranted_bits
from pipeline.versions.deltas.quantizer import PRECISIONS, decode, encode
from tests.versions.deltas.test_integers import stored


def tried(row, bits, served_bits, served_exponent):
    """The row's payload at a precision, and the distance of the decoded payload from the row."""
    payload, _ = encode(row[None], np.array([bits], np.uint8))
    if bits == served_bits < 32:
        kept = stored(row, bits, served_exponent)
        wanted = payload[:1].view(np.int8)[0]
        payload = kept if kept is not None and abs(int(wanted) - served_exponent) <= 1 else payload
    return payload, np.linalg.norm(row - decode(payload, np.array([bits], np.uint8), len(row))[0])


def sent_of(row, served, served_bits, served_exponent, warranted):
    """(bits, payload) of one row, computed from the documented rule."""
    nothing = SKIP, np.empty(0, np.uint8)
    payload, error = tried(row, warranted, served_bits, served_exponent)
    if not served_bits:
        return (warranted, payload) if row.any() else nothing
    behind = np.linalg.norm(row - served)
    if error * (COARSER_GAIN if warranted < served_bits else 1) < behind:
        return warranted, payload
    payload, error = tried(row, served_bits, served_bits, served_exponent)
    return (served_bits, payload) if served_bits > warranted and error < behind else nothing


def case(dim, n=400, seed=0):
    """Weights, served rows, their bits and exponents, importance, convergence, from far apart to nearly equal."""
    random = np.random.default_rng([seed, dim])
    weights = random.normal(0, 0.05, (n, dim)).astype(np.float32)
    weights[random.random(n) < 0.1] = 0
    served_bits = random.choice(np.uint8([0, *PRECISIONS]), n)
    moved = (10.0 ** random.uniform(-6, 0, (n, 1)) * random.normal(0, 0.05, (n, dim))).astype(np.float32)
    served = np.where(served_bits[:, None] > 0, weights + moved, 0).astype(np.float32)
    served[random.random(n) < 0.1] = 0
    convergence = (1 - 10.0 ** random.uniform(-5, 0, n)).astype(np.float32)
    exponents = np.where(served_bits == 16, -15, np.where(served_bits == 8, -10, -7)) + random.integers(-2, 3, n)
    importance = random.pareto(0.7, n).astype(np.float32)
    return weights, served, served_bits, exponents.astype(np.int8), importance, convergence


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8, 16, 33, 200])
def test_a_batch_equals_its_rows_one_by_one(dim):
    weights, served, served_bits, exponents, importance, convergence = case(dim)
    bits, payload = quantize(weights, served, served_bits, exponents, importance, convergence)
    warranted = sent_precision(dim)[warranted_bits(importance, convergence)]
    columns = weights, served, served_bits.tolist(), exponents.tolist(), warranted.tolist()
    wanted = [sent_of(*row) for row in zip(*columns, strict=True)]
    assert {SKIP, 16, 32} <= set(bits.tolist())
    assert bits.tolist() == [each for each, _ in wanted]
    assert payload.tobytes() == b"".join(part.tobytes() for _, part in wanted)


def test_rows_inside_packed_rows_give_the_same():
    weights, *rest = case(16)
    packed = np.zeros(len(weights), [("weights", "<f4", 16), ("count", "<u4")])
    packed["weights"] = weights
    for one, two in zip(quantize(packed["weights"], *rest), quantize(weights, *rest), strict=True):
        assert one.tobytes() == two.tobytes()


def test_zero_rows_give_zero_bytes():
    bits, payload = quantize(*(part[:0] for part in case(4)))
    assert (len(bits), len(payload)) == (0, 0)


@pytest.mark.parametrize("place", [0, 127, 128, 399])
@pytest.mark.parametrize("weight", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_with_its_row(place, weight):
    weights, *rest = case(16)
    weights[place, 7] = weight
    with pytest.raises(InputError, match=f"weights: got one that is not finite in row {place}, wanted finite ones"):
        quantize(weights, *rest)


def test_the_largest_finite_weights_are_accepted():
    weights, *rest = case(16)
    weights[:] = np.finfo(np.float32).max
    assert set(quantize(weights, *rest)[0].tolist()) <= {SKIP, *PRECISIONS}


def test_odd_arrays_are_refused_by_name():
    weights, served, served_bits, exponents, importance, convergence = case(4, n=6)
    for odd in (weights.tolist(), weights.astype(np.float64), weights[:, ::2], weights[:5], weights.ravel()):
        with pytest.raises(InputError, match="weights: got "):
            quantize(odd, served, served_bits, exponents, importance, convergence)
    for odd in (served[:, ::-1], served.astype(np.float16), served[0], np.broadcast_to(served[:1], (2**31, 4))):
        with pytest.raises(InputError, match="served: got "):
            quantize(weights, odd, served_bits, exponents, importance, convergence)
    for odd in (served_bits[::-1], served_bits.astype(np.int64), served_bits[:5]):
        with pytest.raises(InputError, match="served_bits: got "):
            quantize(weights, served, odd, exponents, importance, convergence)
    with pytest.raises(InputError, match="served_bits: got 3, wanted 0 or one of"):
        quantize(weights, served, np.full(6, 3, np.uint8), exponents, importance, convergence)
    with pytest.raises(InputError, match="importance: got "):
        quantize(weights, served, served_bits, exponents, importance[:5], convergence)
    with pytest.raises(InputError, match="convergence: got "):
        quantize(weights, served, served_bits, exponents, importance, convergence.astype(np.float64))
    with pytest.raises(InputError, match="served_exponents: got "):
        quantize(weights, served, served_bits, exponents.astype(np.int16), importance, convergence)
