"""The quantizer at every SIMD level of the machine: equal bytes for every kind of row and every dim."""

import hashlib
from itertools import product

import numpy as np
import pytest

from pipeline.versions.deltas.quantizer import (
    CODEBOOK_BITS,
    CODECS,
    PRECISIONS,
    decode,
    decode_rows,
    encode,
    encode_codebook,
    encode_rows,
)
from tests.support.simd import forced_simd_level, simd_levels

DIMS = (*range(1, 41), 64, 100, 1024)
MOST = np.finfo(np.float32).max
ROWS = 37
"""Two registers of sixteen rows and a remainder."""


def integers(random, dim, most):
    return random.integers(-most, most + 1, (ROWS, dim)).astype(np.float32)


def in_any_order_of_magnitude(random, dim):
    exponents = random.integers(0, 0x7F80_0000, (ROWS, dim)).astype(np.uint32).view(np.float32)
    return exponents * np.where(random.random((ROWS, dim)) < 0.5, np.float32(-1), np.float32(1))


KINDS = {
    "ordinary": lambda random, dim: integers(random, dim, 2**20) * np.float32(2.0**-23),
    "tiny": lambda random, dim: integers(random, dim, 1000) * np.float32(1e-30),
    "huge": lambda random, dim: integers(random, dim, 1000) * np.float32(MOST / 1000),
    "subnormal": lambda random, dim: integers(random, dim, 1000) * np.float32(1e-45),
    "constant": lambda random, dim: np.repeat(integers(random, 1, 2**20) * np.float32(2.0**-21), dim, axis=1),
    "zeros of both signs": lambda random, dim: np.where(
        integers(random, dim, 1) > 0, np.float32(-0.0), np.float32(0.0)
    ),
    "far from zero": lambda random, dim: integers(random, dim, 1000) * np.float32(1e-5) + np.float32(100),
    "halves' edges": lambda random, dim: (
        integers(random, dim, 2) * np.float32(65_504) + integers(random, dim, 3) * np.float32(16)
    ),
    "one far out": lambda random, dim: (
        np.where(np.arange(dim) == dim // 2, np.float32(9), np.float32(1e-3)) * integers(random, dim, 9)
    ),
    "any": in_any_order_of_magnitude,
}


def rows_of(kind, dim):
    return np.ascontiguousarray(KINDS[kind](np.random.default_rng(dim), dim), np.float32)


def everything(kind):
    """Digest of the payloads of all codecs for rows of all dims, and of the floats decoded from them."""
    digest = hashlib.sha256()
    for dim, codec in product(DIMS, CODECS):
        payloads = encode_rows(rows_of(kind, dim), codec)
        digest.update(payloads.tobytes() + decode_rows(payloads, codec, dim).tobytes())
    for dim in DIMS:
        bits = np.resize(np.array(PRECISIONS, np.uint8), ROWS)
        payload, _ = encode(rows_of(kind, dim), bits)
        digest.update(payload.tobytes() + decode(payload, bits, dim).tobytes())
    for dim, codec in product((1, 5, 16, 33), CODEBOOK_BITS):
        payloads = encode_codebook(rows_of(kind, dim), codec, entries=7)
        digest.update(payloads.tobytes() + decode_rows(payloads, codec, dim).tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_every_simd_level_gives_the_same_bytes(kind):
    found = {}
    for level in simd_levels():
        with forced_simd_level(level):
            found[level] = everything(kind)
    assert len(set(found.values())) == 1, found


def test_golden_digest_of_all_codecs():
    """The digest changes with any change of a codec, and then published payloads decode differently."""
    assert everything("ordinary")[:16] == "8dabd89c1199c440"
