"""Rows as integers times a power of two: the step of each precision, rounding, and differences in a served view."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.versions.deltas.coded_rows import ChangedRows
from pipeline.versions.deltas.quantizer import decode, decode_rows, encode, encode_rows, payload_bytes, payload_offsets
from pipeline.versions.deltas.served_view import ServedView

LIMITS = {4: 127, 8: 127, 16: 32_767}
DTYPES = {4: np.int8, 8: np.int8, 16: np.dtype("<i2")}


def stored(row, bits, exponent):
    """The payload of a row on the step 2^exponent; None if a mantissa does not fit."""
    if np.abs(row).max() > np.float64(LIMITS[bits]) * 2.0**exponent:
        return None
    mantissas = np.rint(row.astype(np.float64) / 2.0**exponent).astype(DTYPES[bits])
    return np.concatenate([np.int8([exponent]).view(np.uint8), mantissas.view(np.uint8)])


def normal_rows(n, dim, seed=1, spread=0.05):
    return (np.random.default_rng(seed).standard_normal((n, dim)) * spread).astype(np.float32)


@pytest.mark.parametrize("bits", LIMITS)
@pytest.mark.parametrize("dim", [1, 2, 7, 16, 300])
@pytest.mark.parametrize("spread", [1e-30, 1e-4, 0.05, 3, 1e20])
def test_a_row_is_the_nearest_integers_on_its_step(bits, dim, spread):
    rows = normal_rows(50, dim, spread=spread)
    for row, payload in zip(rows, encode_rows(rows, f"step{bits}"), strict=True):
        assert payload.tobytes() == stored(row, bits, int(payload[:1].view(np.int8)[0])).tobytes()


@pytest.mark.parametrize(("codec", "most"), [("step4", 3.5e-3), ("step8", 6e-5), ("step16", 8e-8)])
def test_decoded_rows_are_about_as_close_as_on_fitted_grids(codec, most):
    """Sixteen fitted levels have 3.2e-3 and 255 levels 1.5e-5 (`test_quantizer`), halves 4e-8."""
    rows = normal_rows(20_000, 16).astype(np.float64) * 2.0 ** np.random.default_rng(2).uniform(0, 2, (20_000, 1))
    near = decode_rows(encode_rows(rows.astype(np.float32), codec), codec, 16)
    assert ((near - rows) ** 2).sum() / (rows**2).sum() <= most


@pytest.mark.parametrize("bits", LIMITS)
def test_the_largest_and_the_smallest_floats_stay_finite(bits):
    most, least = np.finfo(np.float32).max, np.float32(1e-45)
    rows = np.array([[most, -most, 0], [least, -least, 0], [0, 0, 0], [-0.0, 0, most / 2]], np.float32)
    near = decode_rows(encode_rows(rows, f"step{bits}"), f"step{bits}", 3)
    assert np.isfinite(near).all()
    assert (near[2] == 0).all()
    assert (np.abs(near) <= np.abs(rows)).all()


def known_rows(handles, bits, payload, relative):
    """A change of rows that serving holds."""
    none32, none64 = np.empty(0, np.uint32), np.empty(0, np.uint64)
    return ChangedRows(handles, relative, none64, none32, bits, payload, none64)


def after(view, keys, bits, payload, relative):
    """The payloads of rows after they were applied, some as differences."""
    staged = view.stage(known_rows(view.handles(keys), bits, payload, relative))
    view.apply(staged)
    assert view.digest() == staged.digest
    return view.export(keys)[2]


def test_differences_added_to_what_is_stored_are_the_rows():
    served, bits = normal_rows(300, 16), np.full(300, 4, np.uint8)
    view, keys = ServedView(16), np.arange(300, dtype=np.uint64)
    view.put(keys, keys.astype(np.uint32), bits, encode(served, bits)[0])
    payload, _ = encode(served + normal_rows(300, 16, seed=2, spread=0.01), bits)
    differences, relative = view.differences(keys, bits, payload)
    assert 0.5 < relative.mean() < 1
    assert differences.tobytes() != payload.tobytes()
    assert (differences[payload_offsets(bits, 16)[:-1]][relative] == 0).all()
    assert after(view, keys, bits, differences, relative).tobytes() == payload.tobytes()


@pytest.mark.parametrize("bits", LIMITS)
def test_a_difference_is_exact_at_the_ends_of_the_range(bits):
    view, keys, each = ServedView(2), np.uint64([5]), np.uint8([bits])
    one, other = (np.float32([[sign * LIMITS[bits], -sign * LIMITS[bits]]]) for sign in (1, -1))
    view.put(keys, np.uint32([0]), each, encode(one, each)[0])
    payload, _ = encode(other, each)
    differences, relative = view.differences(keys, each, payload)
    assert relative.tolist() == [True]
    rows = after(view, keys, each, differences, relative)
    assert (decode(rows, each, 2) == decode(payload, each, 2)).all()


def test_a_row_of_floats_or_without_a_stored_row_is_no_difference():
    view, keys, bits = ServedView(3), np.uint64([1, 2]), np.uint8([32, 8])
    payload, _ = encode(normal_rows(2, 3), bits)
    view.put(keys[:1], np.uint32([0]), bits[:1], payload[:12])
    same, relative = view.differences(keys, bits, payload)
    assert (same.tobytes(), relative.tolist()) == (payload.tobytes(), [False, False])


@pytest.mark.parametrize(
    ("handle", "bits", "wanted"),
    [
        (9, 8, "1 handles are unknown here, the first is 9"),
        (0, 8, "row of key 1 is a difference of 8 bits to a row of 4 bits"),
        (0, 32, "row of key 1 is a difference of 32 bits to a row of 4 bits"),
    ],
)
def test_a_difference_to_a_row_that_is_not_there_is_refused(handle, bits, wanted):
    view = ServedView(3)
    view.put(np.uint64([1]), np.uint32([0]), np.uint8([4]), np.zeros(payload_bytes(4, 3), np.uint8))
    payload = np.zeros(payload_bytes(bits, 3), np.uint8)
    before = view.digest()
    with pytest.raises(InputError, match=wanted):
        view.stage(known_rows(np.uint32([handle]), np.uint8([bits]), payload, np.bool_([True])))
    assert view.digest() == before


def test_odd_arrays_are_refused():
    view, keys, bits, payload = ServedView(3), np.uint64([1]), np.uint8([4]), np.zeros(4, np.uint8)
    for call in (
        lambda: view.differences(keys, bits, payload[:3]),
        lambda: view.differences(keys.astype(np.int64), bits, payload),
        lambda: view.stage(known_rows(np.uint32([0]), bits, payload, np.uint8([1]))),
        lambda: view.exponents([1]),
    ):
        with pytest.raises(InputError, match=": got "):
            call()
