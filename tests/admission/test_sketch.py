"""The counting sketch: bounds on its estimates, ageing, and bytes that survive a round trip and no damage."""

from collections import Counter

import numpy as np
import pytest
import xxhash

from pipeline.admission.sketch import CountingSketch
from pipeline.errors import DamagedError, InputError
from tests.support.reference.count_min import bound, estimates_of, plain_estimates


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
    excess = estimates_of(sketch, distinct).astype(np.int64) - counts
    assert excess.min() >= 0
    assert excess[np.argsort(counts)[-20:]].max() <= len(keys) * np.e / 512  # the bound of a plain count-min sketch
    assert excess.max() > 0  # narrow enough for the test to mean something


class Model:
    """Rows of counters in dicts, with hashes of its own reading of the header."""

    def __init__(self, width, depth, seed):
        self.width, self.seed = width, seed
        self.rows = [Counter() for _ in range(depth)]

    def places(self, key):
        hashes = (
            xxhash.xxh64_intdigest(key.to_bytes(8, "little"), (self.seed + r) % 2**64) for r in range(len(self.rows))
        )
        return [((h >> 32) * self.width) >> 32 for h in hashes]

    def estimate(self, key):
        return min(row[place] for row, place in zip(self.rows, self.places(key), strict=True))

    def add(self, key):
        count = 1 + self.estimate(key)
        for row, place in zip(self.rows, self.places(key), strict=True):
            row[place] = max(row[place], count)
        return count

    def halve(self):
        for row in self.rows:
            for place in row:
                row[place] //= 2


@pytest.mark.parametrize("seed", range(300))
def test_random_histories_agree_with_a_model(seed):
    """Additions, questions, halvings and restarts in any order."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 80)), int(rng.integers(1, 6)), int(rng.integers(0, 2**64, dtype=np.uint64)))
    sketch, model = CountingSketch(*shape), Model(*shape)
    for _ in range(10):
        keys = rng.integers(0, 50, rng.integers(0, 40)).astype(np.uint64)
        counts = rng.integers(1, 4, len(keys)).astype(np.uint32)
        if rng.random() < 0.5:
            counts[:] = 1
            estimates = sketch.add(keys)
        else:
            estimates = sketch.add(keys, counts)
        wanted = [max(model.add(k) for _ in range(c)) for k, c in zip(keys.tolist(), counts.tolist(), strict=True)]
        assert estimates.tolist() == wanted
        if rng.random() < 0.3:
            sketch.halve()
            model.halve()
        if rng.random() < 0.3:
            sketch = CountingSketch.from_bytes(sketch.to_bytes())
        queried = np.arange(60, dtype=np.uint64)
        assert estimates_of(sketch, queried).tolist() == [model.estimate(k) for k in queried.tolist()]


def stream(kind, n=100_000):
    """[n] keys, of which most are rare."""
    rng = np.random.default_rng(7)
    return (rng.zipf(1.2, n) % 2**40 if kind == "zipf" else rng.integers(0, 60_000, n)).astype(np.uint64)


@pytest.mark.parametrize("kind", ["zipf", "uniform"])
@pytest.mark.parametrize("threshold", [5, 8])
def test_false_admissions_stay_below_the_count_min_bound(kind, threshold):
    width, depth, seed = 1 << 15, 4, 5
    keys = stream(kind)
    distinct, counts = np.unique(keys, return_counts=True)
    sketch = CountingSketch(width, depth, seed)
    sketch.add(keys)
    below = counts < threshold
    admitted = (estimates_of(sketch, distinct[below]) >= threshold).mean()
    plain = (plain_estimates(keys, distinct[below], width, depth, seed) >= threshold).mean()
    assert plain < bound(counts[below], len(keys), threshold, width, depth) < 1
    assert admitted < plain / 5  # what raising only the lowest counters is for
    assert (estimates_of(sketch, distinct[~below]) >= threshold).all()


def test_cutting_the_stream_into_batches_changes_nothing():
    keys = zipf_keys(3_000)
    whole, parts = CountingSketch(128, 4, seed=1), CountingSketch(128, 4, seed=1)
    estimates = np.concatenate([parts.add(part) for part in np.split(keys, [1, 10, 1_700])])
    assert (whole.add(keys) == estimates).all()
    assert whole.digest() == parts.digest()


def test_an_estimate_does_not_count():
    sketch = CountingSketch(64, 2, seed=1)
    sketch.add(keys_of(1, 2, 2))
    before = sketch.to_bytes()
    assert estimates_of(sketch, keys_of(2, 2, 3)).tolist() == [2, 2, 0]
    assert sketch.to_bytes() == before


def test_halving_rounds_down():
    sketch = CountingSketch(1 << 12, 4, seed=1)
    sketch.add(np.repeat(keys_of(1, 2, 3), [1, 2, 5]))
    sketch.halve()
    assert estimates_of(sketch, keys_of(1, 2, 3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("width", "depth"), [(1, 1), (7, 16), (1_000, 4)])
def test_bytes_bring_the_same_sketch_back(width, depth):
    sketch = CountingSketch(width, depth, seed=2**64 - 1)
    sketch.add(zipf_keys(700))
    again = CountingSketch.from_bytes(sketch.to_bytes())
    assert (again.width, again.depth) == (width, depth)
    assert again.digest() == sketch.digest()
    assert again.to_bytes() == sketch.to_bytes()
    assert (again.add(zipf_keys(50, seed=9)) == sketch.add(zipf_keys(50, seed=9))).all()


def test_the_bytes_never_change_their_layout():
    sketch = CountingSketch(4, 2, seed=1)
    sketch.add(np.full(300, 7, np.uint64))
    assert sketch.to_bytes().hex() == "46534b3102000000040000000000000001000000000000000001ac020005ac02d1e047b7c6d34dab"


def test_an_empty_sketch_takes_few_bytes():
    assert len(CountingSketch(1 << 20, 4, seed=1).to_bytes()) < 50


def test_any_damaged_byte_is_detected():
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


@pytest.mark.parametrize("stored", [b"", b"FSK1", bytes(100)])
def test_bytes_that_are_no_sketch_are_refused(stored):
    with pytest.raises(DamagedError):
        CountingSketch.from_bytes(stored)


@pytest.mark.parametrize("stored", ["text", None, 5])
def test_anything_but_bytes_is_refused(stored):
    with pytest.raises(InputError, match=r"stored: got .*, wanted bytes"):
        CountingSketch.from_bytes(stored)


@pytest.mark.parametrize(
    "counters",
    [b"\x00\x07", b"\x00\x09", b"\x00\x00", b"\x00", b"\x01" * 9, b"\xff" * 12, b"\x00\x04\x00\x04", b"\x00\x88\x00"],
)
def test_invalid_counters_with_a_valid_checksum_are_refused(counters):
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


BAD_KEYS = {
    "signed": np.array([1]),
    "doubles": np.array([np.nan]),
    "two columns": np.zeros((2, 2), np.uint64),
    "a scalar": np.uint64(1),
    "every other": np.zeros(6, np.uint64)[::2],
    "big-endian": np.zeros(2, ">u8"),
    "unaligned": np.frombuffer(bytes(17), np.uint8)[1:].view(np.uint64),
    "2^31 times the same": np.broadcast_to(np.uint64(1), 2**31),
    "a list": [1],
    "nothing": None,
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_bad_keys_are_refused(name):
    sketch = CountingSketch(4, 2, seed=1)
    with pytest.raises(InputError, match=r"keys: got .*, wanted uint64 \[n\]"):
        sketch.add(BAD_KEYS[name])


@pytest.mark.parametrize("counts", [np.array([1]), np.zeros(2, np.uint32), np.array([-1.0]), [1]])
def test_bad_counts_are_refused_and_count_nothing(counts):
    sketch = CountingSketch(4, 2, seed=1)
    before = sketch.digest()
    with pytest.raises(InputError, match=r"counts: got .*, wanted uint32 \[1\]"):
        sketch.add(keys_of(1), counts)
    assert sketch.digest() == before


def test_no_keys_count_nothing():
    sketch = CountingSketch(4, 2, seed=1)
    assert sketch.add(keys_of()).tolist() == estimates_of(sketch, keys_of()).tolist() == []
    assert sketch.add(keys_of(), np.zeros(0, np.uint32)).tolist() == []


def test_a_count_of_billions_is_one_addition():
    sketch = CountingSketch(4, 2, seed=1)
    most = 2**32 - 1
    assert sketch.add(keys_of(7, 7), np.array([most - 1, 5], np.uint32)).tolist() == [most - 1, most]
