"""Keys found among ascending ones."""

import numpy as np

from pipeline.arrays.types import Bools, Int64s, UInt64s


def find_keys(keys: UInt64s, known: UInt64s) -> tuple[Int64s, Bools]:
    """Where keys stand among `known`.

    Args:
        keys: [n] uint64, in any order.
        known: [m] uint64, ascending, each once.

    Returns:
        ([n] int64, the index of each key in `known`; [n] bool, whether it is there). The index of a key that is not
        there means nothing, but is one of `known` unless that is empty.

    >>> [each.tolist() for each in find_keys(np.uint64([9, 3, 4]), np.uint64([3, 9]))]
    [[1, 0, 1], [True, True, False]]
    """
    if not len(known):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return places, known[places] == keys
