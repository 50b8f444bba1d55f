"""Keys among ascending ones."""

import numpy as np
import pytest

from pipeline.arrays.ascending import find_keys


@pytest.mark.parametrize("seed", range(3))
def test_keys_are_found_as_in_a_dict(seed):
    random = np.random.default_rng(seed)
    known = np.unique(random.integers(0, 2**64, 50, np.uint64))
    keys = random.permutation(np.concatenate([known[::3], known + np.uint64(1), np.uint64([0, 2**64 - 1])]))
    places, found = find_keys(keys, known)
    at = {key: place for place, key in enumerate(known.tolist())}
    assert found.tolist() == [key in at for key in keys.tolist()]
    assert places[found].tolist() == [at[key] for key in keys.tolist() if key in at]
    assert (places < len(known)).all()


def test_nothing_is_found_among_no_keys():
    places, found = find_keys(np.uint64([7, 0]), np.empty(0, np.uint64))
    assert (places.tolist(), found.tolist()) == ([0, 0], [False, False])
    assert len(find_keys(np.empty(0, np.uint64), np.uint64([7]))[0]) == 0
