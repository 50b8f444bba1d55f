"""The bytes of a delta are divided among weights, keys, dense weights and the header."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.versions.deltas.delta import DenseChange, FieldDelta, encode_delta
from pipeline.versions.deltas.delta_sizes import DeltaSizes
from tests.versions.deltas.test_delta import delta, field_delta


def test_the_parts_add_up_to_the_bytes_of_the_delta():
    made = delta(fields={"user": field_delta(1, known=50, new=40), "item": field_delta(2)})
    encoded = encode_delta(made)
    sizes = DeltaSizes.of(encoded)
    assert sizes.total == len(encoded)
    assert min(sizes.weights, sizes.keys, sizes.dense, sizes.header) > 0
    assert (sizes.sent, sizes.removed) == (99, 6)
    bits = np.concatenate([change.bits for change in made.fields.values()])
    assert sizes.rows == {each: int((bits == each).sum()) for each in (4, 8, 16, 32)}


def test_a_delta_without_rows_has_only_a_header_and_dense_weights():
    empty = delta(fields={"user": FieldDelta.empty(4)}, dense=bytes(300))
    sizes = DeltaSizes.of(encode_delta(empty))
    assert (sizes.weights, sizes.keys, sizes.dense, sizes.sent) == (0, 0, 300, 0)
    assert sizes.header > 0


@pytest.mark.parametrize("dim", [8, 64])
def test_random_weights_of_new_rows_take_their_bits_and_keys_about_their_own(dim):
    count, random = 2_000, np.random.default_rng(1)
    payload = random.integers(0, 256, count * (dim + 1), np.uint8)
    rows = replace(
        FieldDelta.empty(dim),
        new_keys=random.integers(0, 2**64, count, np.uint64),
        new_handles=np.arange(count, dtype=np.uint32),
        bits=np.full(count, 8, np.uint8),
        payload=payload,
    )
    sizes = DeltaSizes.of(encode_delta(delta(fields={"user": rows})))
    assert sizes.weights / count == pytest.approx(dim + 1, rel=0.1)
    assert 6 < sizes.keys / count < 12


def test_floats_are_weights_and_not_keys():
    floats = field_delta(3, known=0, new=100, removed=0, dim=32)
    random = np.random.default_rng(1)
    payload = random.normal(size=100 * 32).astype(np.float32).view(np.uint8)
    floats = replace(floats, bits=np.full(100, 32, np.uint8), payload=payload)
    sizes = DeltaSizes.of(encode_delta(delta(fields={"user": floats})))
    assert sizes.weights > 100 * 32 * 3
    assert sizes.keys < 100 * 16


def test_a_change_of_dense_weights_counts_as_dense():
    change = DenseChange(bytes(16), bytes(10), b"")
    sizes = DeltaSizes.of(encode_delta(delta(level="realtime", dense=change)))
    assert sizes.dense == 26
