"""Ascending integers as LEB128 gaps: each difference to the one before, seven bits a byte, lowest first.

A byte with the high bit set is followed by another of the same gap. Handles of a dense set cost about one byte each.
"""

import numpy as np
import numpy.typing as npt

from pipeline.ground.errors import DamagedError

UInt64s = npt.NDArray[np.uint64]

_LONGEST = 10  # bytes of a 64-bit gap


def encode_gaps(values: UInt64s) -> bytes:
    """Spell `values`, [n] uint64 in ascending order; equal neighbours are allowed.

    >>> encode_gaps(np.array([3, 4, 300], np.uint64)).hex()
    '0301a802'
    """
    if not len(values):
        return b""
    gaps = values.astype(np.uint64)
    gaps[1:] -= values[:-1]
    assert np.all(values[1:] >= values[:-1]), "values are not ascending"
    limits = np.array([1 << (7 * n) for n in range(1, _LONGEST)], np.uint64)
    lengths = 1 + np.searchsorted(limits, gaps, side="right")
    ends = np.cumsum(lengths)
    spelled = np.empty(int(ends[-1]), np.uint8)
    for place in range(int(lengths.max())):
        chosen = lengths > place
        byte = (gaps[chosen] >> np.uint64(7 * place)) & np.uint64(0x7F)
        more = (lengths[chosen] > place + 1).astype(np.uint64) << np.uint64(7)
        spelled[ends[chosen] - lengths[chosen] + place] = (byte | more).astype(np.uint8)
    return spelled.tobytes()


def decode_gaps(spelled: bytes) -> UInt64s:
    """Read them back: [n] uint64. Raises DamagedError for bytes that end inside a gap or a gap above 64 bits.

    >>> decode_gaps(bytes.fromhex("0301a802")).tolist()
    [3, 4, 300]
    """
    if not spelled:
        return np.empty(0, np.uint64)
    parts = np.frombuffer(spelled, np.uint8).astype(np.uint64)
    ends = np.flatnonzero(parts < 128)
    if not len(ends) or ends[-1] != len(parts) - 1:
        raise DamagedError(f"gaps of {len(parts)} bytes end inside a number. hint: they were cut off")
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    lengths = ends + 1 - starts
    if int(lengths.max()) > _LONGEST:
        raise DamagedError(
            f"a gap takes {int(lengths.max())} bytes, at most {_LONGEST} make sense. hint: it is damaged"
        )
    place = np.arange(len(parts)) - np.repeat(starts, lengths)
    gaps = np.add.reduceat((parts & np.uint64(0x7F)) << (np.uint64(7) * place.astype(np.uint64)), starts)
    return np.cumsum(gaps, dtype=np.uint64)
