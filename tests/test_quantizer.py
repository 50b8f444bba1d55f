"""The row codec: golden bytes per precision, error bounds, halves against NumPy's, and what it refuses."""

import numpy as np
import pytest

from pipeline.ground.errors import InputError
from pipeline.versions.quantizer import PRECISIONS, decode, encode, payload_bytes, payload_offsets


def normal_rows(n, dim, seed=1, spread=0.05):
    return (np.random.default_rng(seed).standard_normal((n, dim)) * spread).astype(np.float32)


def all_in(bits, n):
    return np.full(n, bits, np.uint8)


def round_trip(rows, bits):
    payload, _ = encode(rows, all_in(bits, len(rows)))
    return decode(payload, all_in(bits, len(rows)), rows.shape[1])


def relative_mse(rows, bits):
    exact = rows.astype(np.float64)
    return ((round_trip(rows, bits) - exact) ** 2).sum() / (exact**2).sum()


GOLDEN = {
    4: "662e22b880560f",
    8: "071e00b8007f664fff",
    16: "00b80034662e39a8003c",
    32: "000000bf0000803ecdcccc3d022b07bd0000803f",
}


@pytest.mark.parametrize("bits", PRECISIONS)
def test_the_bytes_keep_their_layout_for_ever(bits):
    row = np.array([[-0.5, 0.25, 0.1, -0.033, 1.0]], np.float32)
    payload, offsets = encode(row, all_in(bits, 1))
    assert payload.tobytes().hex() == GOLDEN[bits]
    assert offsets.tolist() == [0, payload_bytes(bits, 5)]


@pytest.mark.parametrize(
    ("dim", "sizes"), [(1, [5, 5, 2, 4]), (2, [5, 6, 4, 8]), (3, [6, 7, 6, 12]), (16, [12, 20, 32, 64])]
)
def test_sizes_per_precision(dim, sizes):
    assert [payload_bytes(bits, dim) for bits in PRECISIONS] == sizes


def test_a_code_means_offset_plus_scale_times_code():
    """Decoding by hand from the layout in the header, the low nibble first."""
    rows = normal_rows(50, 7)
    for bits in (4, 8):
        payload, offsets = encode(rows, all_in(bits, 50))
        for i, row in enumerate(round_trip(rows, bits)):
            stored = payload[offsets[i] : offsets[i + 1]]
            scale, offset = stored[:4].view(np.float16).astype(np.float32)
            codes = stored[4:] if bits == 8 else np.stack([stored[4:] & 15, stored[4:] >> 4], axis=1).ravel()
            assert (row == offset + scale * codes[:7].astype(np.float32)).all()


def test_an_odd_row_ends_in_a_zero_nibble():
    payload, _ = encode(np.array([[1.0, 2.0, 3.0]], np.float32), all_in(4, 1))
    assert payload[-1] >> 4 == 0


def test_four_bits_are_as_close_as_a_greedy_search():
    assert relative_mse(normal_rows(20_000, 16), 4) <= 3.36e-3


def test_eight_bits_are_close():
    assert relative_mse(normal_rows(20_000, 16), 8) <= 1.55e-5


def test_thirty_two_bits_are_exact():
    rows = normal_rows(100, 9)
    rows[0, :2] = -0.0, np.finfo(np.float32).max
    assert round_trip(rows, 32).tobytes() == rows.tobytes()


def test_eight_bits_are_never_off_by_more_than_half_a_scale():
    for seed, mean in enumerate((0.0, 0.3, -100.0, 40_000.0)):
        rows = normal_rows(300, 16, seed, spread=0.05 + abs(mean) / 100) + np.float32(mean)
        payload, offsets = encode(rows, all_in(8, 300))
        scales = np.array([payload[at : at + 2].view(np.float16)[0] for at in offsets[:-1]], np.float64)
        off = np.abs(round_trip(rows, 8).astype(np.float64) - rows).max(axis=1)
        assert (off <= scales / 2 * (1 + 1e-5) + np.abs(rows).max() * 2.0**-22).all()


def test_four_bits_are_no_worse_than_the_plain_grid_where_the_mean_is_far_away():
    rows = normal_rows(300, 16, spread=0.01) + np.float32(100)
    off = np.abs(round_trip(rows, 4) - rows).max(axis=1)
    plain = (rows.max(axis=1) - rows.min(axis=1) + 2.0**-4) / 15  # 2^-4: how far apart halves near 100 are
    assert (off**2).sum() <= (plain**2).sum()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.37, 0.0123456, 1_234.567, -65_000.0, 1e-6])
def test_constant_rows_come_back(bits, value):
    rows = np.full((3, 16), value, np.float32)
    assert np.allclose(round_trip(rows, bits), rows, rtol=4e-6, atol=2.0**-25)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_on_a_grid_is_exact(bits):
    codes = np.arange(1 << bits, dtype=np.float32)
    rows = (0.25 + codes * 0.5)[None, :].astype(np.float32)
    assert (round_trip(rows, bits) == rows).all()


def test_every_half_is_read_as_numpy_reads_it():
    halves = np.arange(65_536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    read = decode(halves.view(np.uint8), all_in(16, 1), len(halves))[0]
    assert read.tobytes() == halves.astype(np.float32).tobytes()


def test_halves_are_rounded_to_nearest_even():
    exact = np.arange(0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (exact + np.append(exact[1:], exact[-1])) / 2  # ties, subnormal ones too
    near = np.concatenate([between, np.nextafter(between, np.float32(0)), np.nextafter(between, np.float32(1e9))])
    random = np.random.default_rng(4).integers(0, 0x477F_E000, 20_000, np.uint32).view(np.float32)
    for rows in (near, -near, random, -random):
        assert round_trip(rows[:, None], 16).tobytes() == rows.astype(np.float16).astype(np.float32).tobytes()


def test_sixteen_bits_saturate():
    rows = np.array([[65_504, 65_519, 65_520, -1e9, 3e38]], np.float32)
    assert round_trip(rows, 16).tolist() == [[65_504, 65_504, 65_504, -65_504, 65_504]]


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_far_beyond_halves_stay_finite(bits):
    most = np.finfo(np.float32).max
    rows = np.array([[-most, most, 0], [most, most, most], [1e9, -1e9, 3.0], [1e-45, -1e-45, 0]], np.float32)
    assert np.isfinite(round_trip(rows, bits)).all()


def test_precisions_mix_in_one_payload():
    rows, bits = normal_rows(40, 6), np.array(PRECISIONS * 10, np.uint8)
    payload, offsets = encode(rows, bits)
    assert (np.diff(offsets) == [payload_bytes(b, 6) for b in bits]).all()
    mixed = decode(payload, bits, 6)
    for each in PRECISIONS:
        assert mixed[bits == each].tobytes() == round_trip(rows, each)[bits == each].tobytes()


@pytest.mark.parametrize("bits", PRECISIONS)
def test_a_row_does_not_depend_on_its_neighbours(bits):
    rows = normal_rows(20, 16)
    together, _ = encode(rows, all_in(bits, 20))
    alone = [encode(rows[i : i + 1].copy(), all_in(bits, 1))[0] for i in range(20)]
    assert together.tobytes() == np.concatenate(alone).tobytes()


def test_no_rows_give_no_bytes():
    payload, offsets = encode(np.empty((0, 4), np.float32), all_in(4, 0))
    assert (len(payload), offsets.tolist()) == (0, [0])
    assert decode(payload, all_in(4, 0), 4).shape == (0, 4)


def test_offsets_name_each_rows_payload():
    assert payload_offsets(np.array([4, 32, 8], np.uint8), 16).tolist() == [0, 12, 76, 96]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bits", PRECISIONS)
def test_weights_that_are_not_finite_are_refused(bits, bad):
    rows = normal_rows(3, 4)
    rows[1, 2] = bad
    with pytest.raises(InputError, match="not finite in row 1, wanted finite ones"):
        encode(rows, all_in(bits, 3))


@pytest.mark.parametrize("bad", [0, 2, 5, 64, 255])
def test_an_unknown_precision_is_refused(bad):
    bits = np.array([4, bad], np.uint8)
    with pytest.raises(InputError, match=f"bits: got {bad} at 1, wanted one of"):
        encode(normal_rows(2, 4), bits)
    with pytest.raises(InputError, match=f"bits: got {bad} at 1, wanted one of"):
        decode(np.zeros(9, np.uint8), bits, 4)
    with pytest.raises(InputError, match=f"bits: got {bad}, wanted one of"):
        payload_bytes(bad, 4)


def test_wrong_arrays_are_refused():
    rows, bits = normal_rows(4, 4), all_in(8, 4)
    with pytest.raises(InputError, match=r"rows: got float64 \[4, 4\], wanted float32 \[n, dim\]"):
        encode(rows.astype(np.float64), bits)
    with pytest.raises(InputError, match=r"rows: got float32 \[4, 2\] not C-contiguous"):
        encode(rows[:, ::2], bits)
    with pytest.raises(InputError, match=r"bits: got uint8 \[3\], wanted uint8 \[4\]"):
        encode(rows, bits[:3])
    with pytest.raises(InputError, match=r"payload: got uint8 \[31\], wanted uint8 \[32\]"):
        decode(np.zeros(31, np.uint8), bits, 4)
    with pytest.raises(InputError, match="dim: got 0, wanted an integer in"):
        encode(np.empty((2, 0), np.float32), bits[:2])
