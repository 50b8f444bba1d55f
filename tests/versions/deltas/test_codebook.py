"""Rows with shared grids: golden bytes, the error of sharing, and the choice among grids."""

import numpy as np
import pytest

from pipeline.versions.deltas.quantizer import CODEBOOK_BITS, decode_rows, encode_codebook, encode_rows


def normal_rows(n, dim, seed=1, spread=0.05):
    return (np.random.default_rng(seed).standard_normal((n, dim)) * spread).astype(np.float32)


def squared_error(rows, payloads, codec):
    return ((decode_rows(payloads, codec, rows.shape[1]).astype(np.float64) - rows) ** 2).sum()


def grids_of(payloads):
    """[n, 2] the scale and offset of each row."""
    return np.ascontiguousarray(payloads[:, :4]).view(np.float16)


GOLDEN = {
    "int2": ["3a34b7b72c", "3a34b7b72c", "933a124434"],
    "int4": ["a12afcb7e00c", "a12afcb7f00c", "55310044600f"],
    "int8": ["3a1a00b800f7c5", "3a1a00b800ffc5", "062100440066ff"],
}


@pytest.mark.parametrize("codec", CODEBOOK_BITS)
def test_golden_bytes(codec):
    rows = np.array([[-0.5, 0.25, 0.1], [-0.5, 0.3, 0.1], [4.0, 5.0, 6.5]], np.float32)
    assert [row.tobytes().hex() for row in encode_codebook(rows, codec, entries=2)] == GOLDEN[codec]


@pytest.mark.parametrize("codec", CODEBOOK_BITS)
@pytest.mark.parametrize(("n", "dim", "entries"), [(1, 1, 256), (5, 3, 2), (37, 16, 7), (300, 33, 256), (5_000, 4, 64)])
def test_rows_have_at_most_so_many_grids(codec, n, dim, entries):
    payloads = encode_codebook(normal_rows(n, dim), codec, entries)
    assert payloads.shape == (n, 4 + (dim * CODEBOOK_BITS[codec] + 7) // 8)
    assert len(np.unique(payloads[:, :4], axis=0)) <= entries


@pytest.mark.parametrize(("codec", "most"), [("int2", 1.03), ("int4", 1.17), ("int8", 6.0)])
def test_shared_grids_have_little_more_error(codec, most):
    rows = normal_rows(20_000, 16)
    shared, own = encode_codebook(rows, codec), encode_rows(rows, codec)
    assert squared_error(rows, shared, codec) <= most * squared_error(rows, own, codec)
    assert len(np.unique(shared[:, :4], axis=0)) <= 256 < len(np.unique(own[:, :4], axis=0))


@pytest.mark.parametrize("codec", CODEBOOK_BITS)
def test_more_entries_reduce_the_error(codec):
    rows = normal_rows(2_000, 16)
    errors = [squared_error(rows, encode_codebook(rows, codec, entries), codec) for entries in (1, 4, 16, 64, 256)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("codec", CODEBOOK_BITS)
def test_each_row_has_the_entry_with_the_least_error(codec):
    rows = normal_rows(200, 8)
    payloads = encode_codebook(rows, codec, 16)
    grids = np.unique(grids_of(payloads), axis=0).astype(np.float64)
    codes = np.round((rows[:, None] - grids[:, 1:]) / grids[:, :1]).clip(0, 2 ** CODEBOOK_BITS[codec] - 1)
    errors = ((grids[:, 1:] + grids[:, :1] * codes - rows[:, None]) ** 2).sum(axis=2)
    chosen = ((decode_rows(payloads, codec, 8).astype(np.float64) - rows) ** 2).sum(axis=1)
    assert (chosen <= errors.min(axis=1) * (1 + 1e-3)).all()


def test_rows_on_few_grids_are_exact():
    codes = np.random.default_rng(2).integers(0, 16, (500, 16))
    codes[:, :2] = 0, 15
    grid = np.arange(500) % 3
    rows = (np.array([0.0, -8.0, 100.0])[grid] + np.array([0.25, 1.0, 2.0])[grid] * codes.T).T.astype(np.float32)
    assert (decode_rows(encode_codebook(rows, "int4", 8), "int4", 16) == rows).all()


def test_zero_rows_are_encoded():
    assert encode_codebook(np.empty((0, 7), np.float32), "int4").shape == (0, 8)
