"""The distinct keys of a batch, against a dict."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.trainer.batch.unique import Uniquer

SEEDS = range(20)


def unique(keys):
    return Uniquer().unique(keys)


def model_unique(keys):
    """The same with a dict."""
    places = {}
    inverse = [places.setdefault(key, len(places)) for key in keys]
    counts = [0] * len(places)
    for place in inverse:
        counts[place] += 1
    return list(places), inverse, counts


def keys_of(rng, most=300):
    """Up to `most` keys of 1 to 64 bits, low or high ones."""
    bits = int(rng.integers(1, 65))
    keys = rng.integers(0, 2**bits, int(rng.integers(0, most)), dtype=np.uint64, endpoint=False)
    return keys << np.uint64(rng.choice([0, 64 - bits]))


@pytest.mark.parametrize("seed", SEEDS)
def test_unique_is_a_dict_in_order_of_first_appearance(seed):
    """One table through many batches, and one for each."""
    rng, uniquer = np.random.default_rng(seed), Uniquer()
    for i in range(100):
        keys = keys_of(rng, 6000 if i % 50 == 0 else 300)
        wanted = model_unique(keys.tolist())
        for found in (uniquer.unique(keys), unique(keys)):
            assert [part.tolist() for part in found] == list(wanted)
            assert [part.dtype for part in found] == [np.uint64, np.int32, np.uint32]


def test_results_stay_when_the_table_is_used_again():
    uniquer = Uniquer()
    first = uniquer.unique(np.uint64([5, 6, 5]))
    uniquer.unique(np.uint64([6, 7, 8, 9]))
    assert [part.tolist() for part in first] == [[5, 6], [0, 1, 0], [2, 1]]


def test_unique_of_nothing_is_nothing():
    distinct, inverse, counts = unique(np.zeros(0, np.uint64))
    assert (len(distinct), len(inverse), len(counts)) == (0, 0, 0)


def test_unique_handles_the_smallest_and_the_largest_key():
    distinct, inverse, _ = unique(np.uint64([2**64 - 1, 0, 2**64 - 1]))
    assert distinct.tolist() == [2**64 - 1, 0]
    assert inverse.tolist() == [0, 1, 0]


BAD_KEYS = {
    "signed": np.int64([1]),
    "doubles": np.array([np.nan]),
    "two columns": np.zeros((2, 2), np.uint64),
    "a scalar": np.uint64(1),
    "every other": np.arange(6, dtype=np.uint64)[::2],
    "big-endian": np.zeros(2, ">u8"),
    "unaligned": np.frombuffer(bytes(17), np.uint8)[1:].view(np.uint64),
    "2^31 times the same": np.broadcast_to(np.uint64(1), 2**31),
    "a list": [1],
    "nothing": None,
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_unique_refuses_keys_that_are(name):
    with pytest.raises(InputError, match=r"keys: got .*, wanted uint64 \[m\]"):
        unique(BAD_KEYS[name])


def test_unique_refuses_more_keys_than_an_inverse_can_name(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**34)
    keys = np.memmap(tmp_path / "sparse", np.uint64, mode="r")
    with pytest.raises(InputError, match=r"number of keys: got 2147483648, wanted an integer in 0\.\.2147483647"):
        unique(keys)
