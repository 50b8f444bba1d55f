"""The counting sketch: bounds on its estimates, ageing, and bytes that survive a round trip and no damage."""

from collections import Counter

import numpy as np
import pytest
import xxhash

from pipeline.admission.sketch import CountingSketch
from pipeline.ground.errors import DamagedError, InputError


def keys_of(*numbers):
    return np.array(numbers, np.uint64)


def zipf_keys(n, seed=3):
    return (np.random.default_rng(seed).zipf(1.3, n) % 5_000).astype(np.uint64)


def test_a_wide_sketch_counts_exactly():
    sketch, keys = CountingSketch(1 << 16, 4, seed=5), zipf_keys(5_000)
    seen, wanted = Counter(), []
    for key in keys.tolist():
        seen[key] += 1
        wanted.append(seen[key])
    assert sketch.add(keys).tolist() == wanted


def test_estimates_are_never_too_low_and_close_for_what_is_frequent():
    sketch, keys = CountingSketch(512, 4, seed=5), zipf_keys(50_000)
    sketch.add(keys)
    distinct, counts = np.unique(keys, return_counts=True)
    excess = sketch.estimate(distinct).astype(np.int64) - counts
    assert excess.min() >= 0
    assert excess[np.argsort(counts)[-20:]].max() <= len(keys) * np.e / 512  # the bound of a plain count-min sketch
    assert excess.max() > 0  # narrow enough for the test to mean something


def test_conservative_update_raises_only_what_limits_the_estimate():
    """A model of the same rule, with hashes of its own reading of the header, gives the same answers."""
    width, depth, seed = 64, 3, 2**64 - 2
    rows = [Counter() for _ in range(depth)]
    wanted, keys = [], zipf_keys(2_000)
    for key in keys.tolist():
        hashes = [xxhash.xxh64_intdigest(key.to_bytes(8, "little"), (seed + r) % 2**64) for r in range(depth)]
        places = [((h >> 32) * width) >> 32 for h in hashes]
        count = 1 + min(row[p] for row, p in zip(rows, places, strict=True))
        for row, place in zip(rows, places, strict=True):
            row[place] = max(row[place], count)
        wanted.append(count)
    assert CountingSketch(width, depth, seed).add(keys).tolist() == wanted


def test_cutting_the_stream_into_batches_changes_nothing():
    keys = zipf_keys(3_000)
    whole, parts = CountingSketch(128, 4, seed=1), CountingSketch(128, 4, seed=1)
    estimates = np.concatenate([parts.add(part) for part in np.split(keys, [1, 10, 1_700])])
    assert (whole.add(keys) == estimates).all()
    assert whole.digest() == parts.digest()


def test_asking_does_not_count():
    sketch = CountingSketch(64, 2, seed=1)
    sketch.add(keys_of(1, 2, 2))
    before = sketch.to_bytes()
    assert sketch.estimate(keys_of(2, 2, 3)).tolist() == [2, 2, 0]
    assert sketch.to_bytes() == before


def test_halving_rounds_down():
    sketch = CountingSketch(1 << 12, 4, seed=1)
    sketch.add(np.repeat(keys_of(1, 2, 3), [1, 2, 5]))
    sketch.halve()
    assert sketch.estimate(keys_of(1, 2, 3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("width", "depth"), [(1, 1), (7, 16), (1_000, 4)])
def test_bytes_bring_the_same_sketch_back(width, depth):
    sketch = CountingSketch(width, depth, seed=2**64 - 1)
    sketch.add(zipf_keys(700))
    again = CountingSketch.from_bytes(sketch.to_bytes())
    assert (again.width, again.depth, again.seed) == (width, depth, 2**64 - 1)
    assert again.digest() == sketch.digest()
    assert again.to_bytes() == sketch.to_bytes()
    assert (again.add(zipf_keys(50, seed=9)) == sketch.add(zipf_keys(50, seed=9))).all()


def test_the_bytes_keep_their_layout_for_ever():
    sketch = CountingSketch(4, 2, seed=1)
    sketch.add(np.full(300, 7, np.uint64))
    assert sketch.to_bytes().hex() == "46534b3102000000040000000000000001000000000000000001ac020005ac02d1e047b7c6d34dab"


def test_an_empty_sketch_takes_few_bytes():
    assert len(CountingSketch(1 << 20, 4, seed=1).to_bytes()) < 50


def test_any_damaged_byte_is_noticed():
    sketch = CountingSketch(16, 2, seed=1)
    sketch.add(zipf_keys(30))
    stored = sketch.to_bytes()
    for at in range(len(stored)):
        damaged = bytearray(stored)
        damaged[at] ^= 0x10
        with pytest.raises(DamagedError, match=r"counting sketch of \d+ bytes does not match"):
            CountingSketch.from_bytes(bytes(damaged))
    for length in range(len(stored)):
        with pytest.raises(DamagedError):
            CountingSketch.from_bytes(stored[:length])


@pytest.mark.parametrize(
    "counters",
    [b"\x00\x07", b"\x00\x09", b"\x00\x00", b"\x00", b"\x01" * 9, b"\xff" * 12, b"\x00\x04\x00\x04", b"\x00\x88\x00"],
)
def test_well_summed_nonsense_is_refused(counters):
    stored = CountingSketch(4, 2, seed=1).to_bytes()[:24] + counters
    with pytest.raises(DamagedError):
        CountingSketch.from_bytes(stored + xxhash.xxh64_intdigest(stored).to_bytes(8, "little"))


def test_digests_differ_by_content_shape_and_seed():
    filled = CountingSketch(64, 2, seed=1)
    filled.add(keys_of(1))
    empty = [CountingSketch(64, 2, seed=1), CountingSketch(32, 4, seed=1), CountingSketch(64, 2, seed=2)]
    assert len({sketch.digest() for sketch in [filled, *empty]}) == 4


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0, 1, 0), "width"),
        ((2**28 + 1, 1, 0), "width"),
        ((2**26 + 1, 4, 0), "width"),
        ((1, 0, 0), "depth"),
        ((1, 17, 0), "depth"),
        ((1, 1, -1), "seed"),
    ],
)
def test_a_shape_out_of_range_is_refused(arguments, name):
    with pytest.raises(InputError, match=f"{name}: got .*, wanted an integer in"):
        CountingSketch(*arguments)


def test_keys_of_another_dtype_are_refused():
    sketch = CountingSketch(4, 2, seed=1)
    for call in (sketch.add, sketch.estimate):
        with pytest.raises(InputError, match=r"keys: got int64 \[1\], wanted uint64 \[n\]"):
            call(np.array([1]))
