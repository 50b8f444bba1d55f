"""Invalid input of the quantizer: an error with the value it got and what it wants, never a crash."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import (
    CODECS,
    decode,
    decode_rows,
    encode,
    encode_codebook,
    encode_rows,
    payload_bytes,
    row_bytes,
)

ROWS = (np.random.default_rng(1).standard_normal((3, 4)) * 0.05).astype(np.float32)
WAYS_IN = {
    "mixed": lambda rows: encode(rows, np.full(3, 4, np.uint8)),
    "codebook": lambda rows: encode_codebook(rows, "int4"),
    **{codec: lambda rows, codec=codec: encode_rows(rows, codec) for codec in CODECS},
}
BAD_ROWS = {
    "float64": (ROWS.astype(np.float64), r"got float64 \[3, 4\], wanted float32 \[n, dim\]"),
    "integers": (ROWS.astype(np.int32), r"got int32 \[3, 4\], wanted float32"),
    "other byte order": (ROWS.astype(">f4"), r"got >f4 \[3, 4\], wanted float32"),
    "one row alone": (ROWS[0], r"got float32 \[4\], wanted float32 \[n, dim\]"),
    "three axes": (ROWS[None], r"got float32 \[1, 3, 4\], wanted"),
    "columns left out": (ROWS[:, ::2], r"got float32 \[3, 2\] not C-contiguous"),
    "backwards": (ROWS[::-1], "not C-contiguous"),
    "column order": (np.asfortranarray(ROWS), "not C-contiguous"),
    "misaligned": (np.zeros(49, np.uint8)[1:].view(np.float32).reshape(3, 4), r"got float32 \[3, 4\]"),
    "no columns": (np.empty((2, 0), np.float32), r"dim: got 0, wanted an integer in 1\.\.65536"),
    "no columns, many rows": (np.empty((2**31, 0), np.float32), "dim: got 0"),
    "no rows, many columns": (np.empty((0, 2**31), np.float32), f"dim: got {2**31}, wanted"),
    "too many columns": (np.zeros((1, 65_537), np.float32), "dim: got 65537, wanted"),
    "repeated without memory": (
        np.broadcast_to(np.float32(0), (2**31, 16)),
        r"got float32 \[2147483648, 16\] not C-con",
    ),
    "size near 64 bits": (as_strided(np.zeros(1, np.float32), (2**31, 2**29), (0, 0)), "not C-contiguous"),
    "a list": ([[0.0, 1.0]], "got list, wanted float32"),
    "nothing": (None, "got NoneType, wanted float32"),
}


@pytest.mark.parametrize("way", WAYS_IN)
@pytest.mark.parametrize("bad", BAD_ROWS)
def test_rows_of_a_wrong_kind_are_refused(way, bad):
    rows, message = BAD_ROWS[bad]
    with pytest.raises(InputError, match=message):
        WAYS_IN[way](rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("way", WAYS_IN)
def test_weights_that_are_not_finite_are_refused(way, bad):
    rows = ROWS.copy()
    rows[1, 2] = bad
    with pytest.raises(InputError, match="not finite in row 1, wanted finite ones"):
        WAYS_IN[way](rows)


@pytest.mark.parametrize("bad", ["", "int3", "INT4", 4, None, b"int4", []])
def test_an_unknown_codec_is_refused(bad):
    for call in (
        lambda: row_bytes(bad, 4),
        lambda: encode_rows(ROWS, bad),
        lambda: decode_rows(np.zeros((3, 6), np.uint8), bad, 4),
    ):
        with pytest.raises(InputError, match=f"codec: got .*, wanted one of {', '.join(CODECS)}"):
            call()


@pytest.mark.parametrize("bad", [0, 2, 5, 64, 255])
def test_an_unknown_precision_is_refused(bad):
    bits = np.array([4, bad], np.uint8)
    with pytest.raises(InputError, match=f"bits: got {bad} at 1, wanted one of"):
        encode(ROWS[:2], bits)
    with pytest.raises(InputError, match=f"bits: got {bad} at 1, wanted one of"):
        decode(np.zeros(5, np.uint8), bits, 4)
    with pytest.raises(InputError, match=f"bits: got {bad}, wanted one of"):
        payload_bytes(bad, 4)


@pytest.mark.parametrize("dim", [-1, 0, 65_537, 2**31, 2**64, 1.0, True, None])
def test_an_impossible_dim_is_refused(dim):
    with pytest.raises(InputError, match=r"dim: got .*, wanted an integer in 1\.\.65536"):
        row_bytes("int4", dim)
    with pytest.raises(InputError, match=r"dim: got .*, wanted an integer in 1\.\.65536"):
        decode_rows(np.zeros((1, 6), np.uint8), "int4", dim)
    with pytest.raises(InputError, match=r"dim: got .*, wanted an integer in 1\.\.65536"):
        decode(np.zeros(6, np.uint8), np.array([4], np.uint8), dim)


@pytest.mark.parametrize(
    ("payloads", "got"),
    [
        (np.zeros((3, 5), np.uint8), r"uint8 \[3, 5\]"),
        (np.zeros((3, 6), np.int8), r"int8 \[3, 6\]"),
        (np.zeros(18, np.uint8), r"uint8 \[18\]"),
        (np.zeros((3, 12), np.uint8)[:, ::2], r"uint8 \[3, 6\] not C-contiguous"),
        (np.broadcast_to(np.uint8(0), (2**31, 6)), r"uint8 \[2147483648, 6\] not C-contiguous"),
        (b"123456", "bytes"),
    ],
)
def test_payloads_of_a_wrong_kind_are_refused(payloads, got):
    with pytest.raises(InputError, match=rf"payloads: got {got}, wanted uint8 \[n, 6\]"):
        decode_rows(payloads, "int4", 4)


def test_inconsistent_lengths_are_refused():
    bits = np.full(3, 8, np.uint8)
    with pytest.raises(InputError, match=r"bits: got uint8 \[2\], wanted uint8 \[3\]"):
        encode(ROWS, bits[:2])
    for length in (0, 14, 16):
        with pytest.raises(InputError, match=rf"payload: got uint8 \[{length}\], wanted uint8 \[15\]"):
            decode(np.zeros(length, np.uint8), bits, 4)
    many = np.broadcast_to(np.uint8(8), (2**31,))
    with pytest.raises(InputError, match=r"bits: got uint8 \[2147483648\] not C-contiguous, wanted uint8 \[n\]"):
        decode(np.zeros(15, np.uint8), many, 4)


@pytest.mark.parametrize(
    ("codec", "entries", "message"),
    [
        ("int16", 4, "codec: got 'int16', wanted one of int2, int4, int8"),
        ("step4", 4, "codec: got 'step4'"),
        ("fp16", 4, "codec: got 'fp16'"),
        (4, 4, "codec: got 4"),
        ("int4", 0, r"entries: got 0, wanted an integer in 1\.\.256"),
        ("int4", 257, "entries: got 257"),
        ("int4", -1, "entries: got -1"),
        ("int4", 2.0, r"entries: got 2\.0"),
    ],
)
def test_impossible_codebooks_are_refused(codec, entries, message):
    with pytest.raises(InputError, match=message):
        encode_codebook(ROWS, codec, entries)
