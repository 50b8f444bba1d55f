"""Rows with shared grids: golden bytes, a decoder in NumPy, the error of sharing, and invalid bytes."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import CODEBOOK_BITS, decode_codebook, decode_rows, encode_codebook, encode_rows


def normal_rows(n, dim, seed=1, spread=0.05):
    return (np.random.default_rng(seed).standard_normal((n, dim)) * spread).astype(np.float32)


def squared_error(rows, read):
    return ((read.astype(np.float64) - rows) ** 2).sum()


GOLDEN = {
    2: "02010200030000003a34b7b7933a12440000012c2c34",
    4: "0401020003000000a12afcb755310044000001e00cf00c600f",
    8: "08010200030000003a1a00b80621004400000100f7c500ffc50066ff",
}


@pytest.mark.parametrize("bits", CODEBOOK_BITS)
def test_golden_bytes(bits):
    rows = np.array([[-0.5, 0.25, 0.1], [-0.5, 0.3, 0.1], [4.0, 5.0, 6.5]], np.float32)
    assert encode_codebook(rows, bits, entries=2).tobytes().hex() == GOLDEN[bits]


def read_in_numpy(encoded):
    """Decode by the layout documented in the native header."""
    raw = encoded.tobytes()
    bits, entries, dim, n = (
        raw[0],
        raw[1] + 1,
        int.from_bytes(raw[2:4], "little") + 1,
        int.from_bytes(raw[4:8], "little"),
    )
    grids = encoded[8 : 8 + 4 * entries].copy().view(np.float16).astype(np.float32).reshape(entries, 2)
    own = grids[encoded[8 + 4 * entries :][:n]]
    packed = np.unpackbits(encoded[8 + 4 * entries + n :].reshape(n, -1), axis=1, bitorder="little").reshape(
        n, -1, bits
    )
    codes = (packed.astype(np.float32) * 2.0 ** np.arange(bits, dtype=np.float32)).sum(axis=2, dtype=np.float32)
    return own[:, 1:] + own[:, :1] * codes[:, :dim]


@pytest.mark.parametrize("bits", CODEBOOK_BITS)
@pytest.mark.parametrize(("n", "dim", "entries"), [(1, 1, 256), (5, 3, 2), (37, 16, 7), (300, 33, 256), (5_000, 4, 64)])
def test_numpy_decodes_the_documented_layout(bits, n, dim, entries):
    encoded = encode_codebook(normal_rows(n, dim), bits, entries)
    read = decode_codebook(encoded)
    assert read.shape == (n, dim)
    assert (read == read_in_numpy(encoded)).all()
    assert len(encoded) == 8 + 4 * min(n, entries) + n * (1 + (dim * bits + 7) // 8)


@pytest.mark.parametrize(("bits", "most"), [(2, 1.03), (4, 1.17), (8, 6.0)])
def test_shared_grids_save_three_bytes_per_row_at_little_error(bits, most):
    rows = normal_rows(20_000, 16)
    encoded, own = encode_codebook(rows, bits), encode_rows(rows, f"int{bits}")
    shared_error = squared_error(rows, decode_codebook(encoded))
    assert shared_error <= most * squared_error(rows, decode_rows(own, f"int{bits}", 16))
    assert own.nbytes - encoded.nbytes == 3 * len(rows) - 4 * 256 - 8


@pytest.mark.parametrize("bits", CODEBOOK_BITS)
def test_more_entries_reduce_the_error(bits):
    rows = normal_rows(2_000, 16)
    errors = [
        squared_error(rows, decode_codebook(encode_codebook(rows, bits, entries))) for entries in (1, 4, 16, 64, 256)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("bits", CODEBOOK_BITS)
def test_each_row_has_the_entry_with_the_least_error(bits):
    rows = normal_rows(200, 8)
    encoded = encode_codebook(rows, bits, 16)
    grids = encoded[8:72].copy().view(np.float16).astype(np.float64).reshape(16, 2)
    codes = np.round((rows[:, None] - grids[:, 1:]) / grids[:, :1]).clip(0, 2**bits - 1)
    errors = ((grids[:, 1:] + grids[:, :1] * codes - rows[:, None]) ** 2).sum(axis=2)
    chosen = np.take_along_axis(errors, encoded[72 : 72 + 200, None].astype(np.int64), axis=1)[:, 0]
    assert (chosen <= errors.min(axis=1) * (1 + 1e-3)).all()


def test_rows_on_few_grids_are_exact():
    codes = np.random.default_rng(2).integers(0, 16, (500, 16))
    codes[:, :2] = 0, 15
    grid = np.arange(500) % 3
    rows = (np.array([0.0, -8.0, 100.0])[grid] + np.array([0.25, 1.0, 2.0])[grid] * codes.T).T.astype(np.float32)
    assert (decode_codebook(encode_codebook(rows, 4, 8)) == rows).all()


def test_zero_rows_are_encoded():
    encoded = encode_codebook(np.empty((0, 7), np.float32), 4)
    assert len(encoded) == 12
    assert decode_codebook(encoded).shape == (0, 7)


def damaged(at, value):
    encoded = encode_codebook(normal_rows(9, 5), 4, 3)
    encoded[at] = value
    return encoded


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 0, "of bits other than 2, 4 or 8"),
        (0, 3, "of bits other than"),
        (0, 8, "not as long as its header says"),
        (1, 3, "not as long as its header says"),
        (2, 9, "not as long as its header says"),
        (3, 255, "not as long as its header says"),
        (4, 8, "not as long as its header says"),
        (7, 255, "not as long as its header says"),
        (9, 0x7C, "an entry that is not finite"),
        (9, 0xA0, "whose scale is negative"),
        (15, 0xFC, "an entry that is not finite"),
        (20, 3, "a row whose entry is not in the table"),
        (28, 255, "a row whose entry is not in the table"),
    ],
)
def test_damaged_bytes_are_refused_with_the_reason(at, value, message):
    with pytest.raises(InputError, match=rf"codebook: got 56 bytes .*{message}.*, wanted what encode_codebook gives"):
        decode_codebook(damaged(at, value))


def test_a_wrong_length_is_refused():
    encoded = encode_codebook(normal_rows(9, 5), 4, 3)
    for length in range(len(encoded)):
        with pytest.raises(InputError, match=f"codebook: got {length} bytes"):
            decode_codebook(encoded[:length])
    with pytest.raises(InputError, match="codebook: got 57 bytes not as long as its header says"):
        decode_codebook(np.append(encoded, np.uint8(0)))


def test_random_bytes_are_decoded_or_refused():
    random = np.random.default_rng(3)
    for _ in range(3_000):
        encoded = damaged(random.integers(0, 56, 3), random.integers(0, 256, 3).astype(np.uint8))
        try:
            assert np.isfinite(decode_codebook(encoded)).all()
        except InputError:
            continue
