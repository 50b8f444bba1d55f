"""Rows trained for few bits: the grids against NumPy, few values, the format that serving decodes, invalid input."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import decode
from pipeline.versions.deltas.rounding import RowRounding, as_read

ALL = (8, 4, 2, "ternary", 1)


def rows_of(n: int, dim: int, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=(n, dim)) * np.exp2(random.integers(-20, 20, (n, 1)))).astype(np.float32)


def rounded(rows: np.ndarray, quantise) -> np.ndarray:
    return RowRounding(quantise).rounded(rows, np.zeros(len(rows), np.float32))


def power_of_two(scale: np.ndarray) -> np.ndarray:
    """The nearest one."""
    below = np.exp2(np.floor(np.log2(scale)))
    return np.where(scale < 1.5 * below, below, 2 * below)


def reference(rows: np.ndarray, quantise) -> np.ndarray:
    exact = rows.astype(np.float64)
    size = np.abs(exact)
    if quantise == 1:
        return np.sign(exact) * power_of_two(size.mean(axis=1, keepdims=True))
    if quantise == "ternary":
        large = size > 0.7 * size.mean(axis=1, keepdims=True)
        step = power_of_two((size * large).sum(axis=1, keepdims=True) / large.sum(axis=1, keepdims=True))
        return np.clip(np.rint(exact / step), -1, 1) * step
    mean_square = (exact**2).mean(axis=1, keepdims=True)
    if quantise == 2:
        step = np.exp2(np.floor(np.log2(2 * mean_square) / 2))
    elif quantise == 4:
        step = np.exp2(np.floor(np.log2(1.2 * mean_square) / 2) - 2)
    else:
        most = size.max(axis=1, keepdims=True)
        step = np.exp2(np.floor(np.log2(most)) - 6)
        step = np.where(most > 127 * step, 2 * step, step)
    return np.rint(exact / step) * step


@pytest.mark.parametrize("quantise", ALL)
@pytest.mark.parametrize("dim", [1, 2, 7, 16, 64, 100])
def test_values_are_those_of_the_papers_on_steps_of_powers_of_two(quantise, dim):
    rows = rows_of(200, dim)
    np.testing.assert_array_equal(rounded(rows, quantise), reference(rows, quantise).astype(np.float32))


@pytest.mark.parametrize("quantise", ALL)
def test_the_published_payload_decodes_to_the_values_that_training_reads(quantise):
    rows, rounding = rows_of(50, 16), RowRounding(quantise)
    payload = rounding.encode(rows).ravel()
    decoded = decode(payload, np.full(50, rounding.bits, np.uint8), 16)
    assert decoded.tobytes() == rounded(rows, quantise).tobytes()


def test_fewer_bits_have_a_larger_error_and_fewer_values():
    random = np.random.default_rng(2)
    rows = (random.normal(size=(2_000, 16)) * np.exp2(random.uniform(-1, 1, (2_000, 1)))).astype(np.float32)
    errors = [float(((rounded(rows, q) - rows) ** 2).sum() / (rows**2).sum()) for q in ALL]
    assert errors == sorted(errors)
    assert errors[0] < 1e-4 < errors[1] < 0.006 < 0.07 < errors[2] < 0.12 < errors[3] < 0.25 < errors[4] < 0.45
    values = [len(np.unique(rounded(rows, q)[0])) for q in (2, "ternary", 1)]
    assert values[0] <= 7
    assert values[1:] == [3, 2]


@pytest.mark.parametrize("quantise", ALL)
def test_zeros_stay_zeros(quantise):
    zeros = np.zeros((2, 5), np.float32)
    assert rounded(zeros, quantise).tobytes() == zeros.tobytes()
    assert not RowRounding(quantise).encode(zeros).any()


def test_rows_from_the_importance_on_are_not_rounded():
    rows, importance = rows_of(3, 4), np.float32([0.0999, 0.1, np.inf])
    found = RowRounding("ternary", below=0.1).rounded(rows, importance)
    np.testing.assert_array_equal(found[0], rounded(rows, "ternary")[0])
    np.testing.assert_array_equal(found[1:], rows[1:])


def test_rows_inside_packed_ones_are_read_in_place():
    packed = np.zeros(5, [("weights", "<f4", (3,)), ("importance", "<f4"), ("unsettled", "<f4")])
    packed["weights"] = rows_of(5, 3)
    np.testing.assert_array_equal(as_read(packed, RowRounding(1)), rounded(packed["weights"].copy(), 1))
    assert as_read(packed, None).base is packed


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        (np.zeros(3, np.float32), "got no matrix, wanted float32"),
        ([[1.0]], "got no matrix, wanted float32"),
        (np.zeros((2, 3)), r"got float64 \[2, 3\], wanted float32"),
        (np.zeros((2, 0), np.float32), "dim: got 0, wanted an integer"),
        (np.float32([[1, 2], [1, np.nan]]), "not finite in row 1"),
        (np.float32([[np.inf, 2]]), "not finite in row 0"),
    ],
)
def test_rows_that_are_no_weights_are_refused(weights, problem):
    with pytest.raises(InputError, match=problem):
        RowRounding(4).encode(weights)
    with pytest.raises(InputError, match=problem):
        RowRounding(4).rounded(weights, np.zeros(len(weights), np.float32))


def test_an_importance_of_another_dtype_is_refused():
    with pytest.raises(InputError, match=r"importance: got float64 \[2\], wanted float32 \[n\]"):
        RowRounding(4, below=1.0).rounded(rows_of(2, 3), np.zeros(2))
