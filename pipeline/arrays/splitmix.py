"""SplitMix64: mixes 64-bit words, for hashes and pseudorandom numbers that depend on their input alone.

Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 16.
"""

import numpy as np

from pipeline.arrays.types import UInt64s

GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""The step of the generator: its n-th number is `mix(seed + n * GAMMA)`."""


def mix(words: UInt64s) -> UInt64s:
    """[n] uint64: a bijection whose output bits depend on all input bits; 0 stays 0.

    >>> [hex(word) for word in mix(np.array([0, 1], np.uint64) + GAMMA)]
    ['0xe220a8397b1dcdaf', '0x910a2dec89025cc1']
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
