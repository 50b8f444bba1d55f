"""The quantizer: golden bytes per codec, error bounds, halves against NumPy's, and invalid input."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import (
    CODECS,
    PRECISIONS,
    decode,
    decode_rows,
    encode,
    encode_rows,
    payload_bytes,
    payload_offsets,
    payload_total,
    row_bytes,
)


def normal_rows(n, dim, seed=1, spread=0.05):
    return (np.random.default_rng(seed).standard_normal((n, dim)) * spread).astype(np.float32)


def all_in(bits, n):
    return np.full(n, bits, np.uint8)


def round_trip(rows, bits):
    payload, _ = encode(rows, all_in(bits, len(rows)))
    return decode(payload, all_in(bits, len(rows)), rows.shape[1])


def through(rows, codec):
    return decode_rows(encode_rows(rows, codec), codec, rows.shape[1])


def relative_mse(rows, codec):
    exact = rows.astype(np.float64)
    return ((decode_rows(encode_rows(rows, codec), codec, rows.shape[1]) - exact) ** 2).sum() / (exact**2).sum()


CODEC_OF = {4: "step4", 8: "step8", 16: "step16", 32: "fp32"}
GOLDEN = {
    "int2": "ca37bcb65403",
    "int4": "662e22b880560f",
    "int8": "071e00b8007f664fff",
    "bf16": "00bf803ecd3d07bd803f",
    "fp16": "00b80034662e39a8003c",
    "fp32": "000000bf0000803ecdcccc3d022b07bd0000803f",
    "step4": "fdfc02010008",
    "step8": "fae01006fe40",
    "step16": "f500fc0002cd00bcff0008",
}


@pytest.mark.parametrize("codec", CODECS)
def test_golden_bytes(codec):
    row = np.array([[-0.5, 0.25, 0.1, -0.033, 1.0]], np.float32)
    payloads = encode_rows(row, codec)
    assert payloads.tobytes().hex() == GOLDEN[codec]
    assert payloads.shape == (1, row_bytes(codec, 5))


@pytest.mark.parametrize("bits", PRECISIONS)
def test_mixed_batches_have_the_bytes_of_their_codecs(bits):
    rows = normal_rows(37, 5)
    payload, offsets = encode(rows, all_in(bits, 37))
    assert payload.tobytes() == encode_rows(rows, CODEC_OF[bits]).tobytes()
    assert offsets.tolist() == [i * payload_bytes(bits, 5) for i in range(38)]
    assert (
        decode(payload, all_in(bits, 37), 5).tobytes()
        == decode_rows(payload.reshape(37, -1), CODEC_OF[bits], 5).tobytes()
    )


@pytest.mark.parametrize(
    ("dim", "sizes"), [(1, [2, 2, 3, 4]), (2, [3, 3, 5, 8]), (3, [4, 4, 7, 12]), (16, [17, 17, 33, 64])]
)
def test_sizes_per_precision(dim, sizes):
    assert [payload_bytes(bits, dim) for bits in PRECISIONS] == sizes


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dim", [1, 3, 4, 7, 16, 33])
def test_a_code_decodes_to_offset_plus_scale_times_code(bits, dim):
    """Decode in NumPy by the layout documented in the native header, the first code in the lowest bits."""
    rows = normal_rows(50, dim)
    payloads = encode_rows(rows, f"int{bits}")
    scales, offsets = payloads[:, :4].copy().view(np.float16).astype(np.float32).T[:, :, None]
    packed = np.unpackbits(payloads[:, 4:], axis=1, bitorder="little").reshape(50, -1, bits)
    codes = (packed.astype(np.float32) * 2.0 ** np.arange(bits, dtype=np.float32)).sum(axis=2, dtype=np.float32)
    assert (codes[:, dim:] == 0).all()
    assert (decode_rows(payloads, f"int{bits}", dim) == offsets + scales * codes[:, :dim]).all()


@pytest.mark.parametrize(("codec", "most"), [("int2", 6.56e-2), ("int4", 3.18e-3), ("int8", 1.50e-5), ("bf16", 2.8e-6)])
def test_decoded_rows_are_close(codec, most):
    """PyTorch's greedy search: 8.7e-2 in 2 bits and 3.4e-3 in 4; nearest of 255 levels between the extremes: 1.5e-5."""
    assert relative_mse(normal_rows(20_000, 16), codec) <= most


def halves_below(values):
    near = values.astype(np.float16)
    return np.where(near > values, np.nextafter(near, np.float16(-np.inf)), near)


def covering_grid_error(rows, bits):
    """Squared error per row on the grid between its extremes, rounded outwards to halves; codes in float64."""
    most, exact = 2**bits - 1, rows.astype(np.float64)
    offset = halves_below(exact.min(axis=1, keepdims=True)).astype(np.float64)
    scale = -halves_below(-(exact.max(axis=1, keepdims=True) - offset) / most).astype(np.float64)
    codes = np.clip(np.round((exact - offset) / np.maximum(scale, 1e-30)), 0, most)
    return ((offset + scale * codes - exact) ** 2).sum(axis=1)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(("mean", "spread"), [(0, 1e-5), (0, 0.05), (0.3, 0.05), (100, 0.01), (-20_000, 5_000)])
@pytest.mark.parametrize("dim", [1, 2, 5, 16, 64, 300])
def test_no_row_has_more_error_than_on_the_grid_that_covers_it(bits, mean, spread, dim):
    rows = normal_rows(200, dim, spread=spread) + np.float32(mean)
    read = decode_rows(encode_rows(rows, f"int{bits}"), f"int{bits}", dim)
    error = ((read - rows.astype(np.float64)) ** 2).sum(axis=1)
    rounding = np.sqrt(dim) * np.abs(rows).max(axis=1) * 2.0**-22  # sums in float32
    assert (np.sqrt(error) <= np.sqrt(covering_grid_error(rows, bits)) * (1 + 1e-4) + rounding).all()


def test_thirty_two_bits_are_exact():
    rows = normal_rows(100, 9)
    rows[0, :2] = -0.0, np.finfo(np.float32).max
    assert round_trip(rows, 32).tobytes() == rows.tobytes()


def test_eight_bits_are_never_off_by_more_than_half_a_scale():
    for seed, mean in enumerate((0.0, 0.3, -100.0, 40_000.0)):
        rows = normal_rows(300, 16, seed, spread=0.05 + abs(mean) / 100) + np.float32(mean)
        payloads = encode_rows(rows, "int8")
        scales = payloads[:, :2].copy().view(np.float16)[:, 0].astype(np.float64)
        off = np.abs(through(rows, "int8").astype(np.float64) - rows).max(axis=1)
        assert (off <= scales / 2 * (1 + 1e-5) + np.abs(rows).max() * 2.0**-22).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.37, 0.0123456, 1_234.567, -65_000.0, 1e-6])
def test_constant_rows_are_exact(bits, value):
    rows = np.full((3, 16), value, np.float32)
    assert np.allclose(through(rows, f"int{bits}"), rows, rtol=4e-6, atol=2.0**-25)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_on_a_grid_is_exact(bits):
    codes = np.arange(1 << bits, dtype=np.float32)
    rows = (0.25 + codes * 0.5)[None, :].astype(np.float32)
    assert (through(rows, f"int{bits}") == rows).all()


def test_every_half_is_decoded_as_in_numpy():
    halves = np.arange(65_536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    read = decode_rows(halves.view(np.uint8)[None], "fp16", len(halves))[0]
    assert read.tobytes() == halves.astype(np.float32).tobytes()


def test_halves_are_rounded_to_nearest_even():
    exact = np.arange(0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (exact + np.append(exact[1:], exact[-1])) / 2  # ties, subnormal ones too
    near = np.concatenate([between, np.nextafter(between, np.float32(0)), np.nextafter(between, np.float32(1e9))])
    random = np.random.default_rng(4).integers(0, 0x477F_E000, 20_000, np.uint32).view(np.float32)
    for rows in (near, -near, random, -random):
        assert through(rows[:, None], "fp16").tobytes() == rows.astype(np.float16).astype(np.float32).tobytes()


def test_sixteen_bits_saturate():
    rows = np.array([[65_504, 65_519, 65_520, -1e9, 3e38]], np.float32)
    assert through(rows, "fp16").tolist() == [[65_504, 65_504, 65_504, -65_504, 65_504]]
    most = np.uint32(0x7F7F_0000).view(np.float32)
    rows = np.array([[np.finfo(np.float32).max, -np.finfo(np.float32).max, most]], np.float32)
    assert decode_rows(encode_rows(rows, "bf16"), "bf16", 3).tolist() == [[most, -most, most]]


def test_bfloats_are_rounded_to_nearest_even():
    upper = np.random.default_rng(5).integers(0, 0x7F7F, 3_000, np.uint32)
    for below, up in ((0x7FFF, 0), (0x8000, upper & 1), (0x8001, 1)):
        for sign in (0, 0x8000):
            rows = (((upper | sign) << 16) | below).astype(np.uint32).view(np.float32)[:, None]
            assert (encode_rows(rows, "bf16").view(np.uint16)[:, 0] == (upper + up | sign)).all()


@pytest.mark.parametrize("codec", CODECS)
def test_weights_far_beyond_halves_stay_finite(codec):
    most = np.finfo(np.float32).max
    rows = np.array([[-most, most, 0], [most, most, most], [1e9, -1e9, 3.0], [1e-45, -1e-45, 0]], np.float32)
    assert np.isfinite(decode_rows(encode_rows(rows, codec), codec, 3)).all()


def test_precisions_mix_in_one_payload():
    rows, bits = normal_rows(40, 6), np.array(PRECISIONS * 10, np.uint8)
    payload, offsets = encode(rows, bits)
    assert (np.diff(offsets) == [payload_bytes(b, 6) for b in bits]).all()
    mixed = decode(payload, bits, 6)
    for each in PRECISIONS:
        assert mixed[bits == each].tobytes() == round_trip(rows, each)[bits == each].tobytes()


@pytest.mark.parametrize("codec", CODECS)
def test_a_row_does_not_depend_on_other_rows(codec):
    rows = normal_rows(20, 16)
    alone = [encode_rows(rows[i : i + 1].copy(), codec) for i in range(20)]
    assert encode_rows(rows, codec).tobytes() == np.concatenate(alone).tobytes()


def test_zero_rows_give_zero_bytes():
    payload, offsets = encode(np.empty((0, 4), np.float32), all_in(4, 0))
    assert (len(payload), offsets.tolist()) == (0, [0])
    assert decode(payload, all_in(4, 0), 4).shape == (0, 4)
    for codec in CODECS:
        assert decode_rows(encode_rows(np.empty((0, 4), np.float32), codec), codec, 4).shape == (0, 4)


def test_offsets_locate_each_rows_payload():
    assert payload_offsets(np.array([4, 32, 8], np.uint8), 16).tolist() == [0, 17, 81, 98]
    assert payload_total(np.array([4, 32, 8], np.uint8), 16) == 98
    assert payload_total(np.empty(0, np.uint8), 16) == 0


@pytest.mark.parametrize("measure", [payload_offsets, payload_total])
def test_sizes_of_an_unknown_precision_are_refused(measure):
    with pytest.raises(InputError, match="bits: got 5 at 1, wanted one of"):
        measure(np.array([4, 5, 0], np.uint8), 16)
    with pytest.raises(InputError, match=r"bits: got int64 \[1\], wanted uint8"):
        measure(np.array([4]), 16)
