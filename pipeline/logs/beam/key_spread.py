"""Keys that spread evenly over the parallel subtasks of a step on Flink.

Flink hashes a key into a key group; a job of ours has one key group per subtask. With a handful of shards, arbitrary
keys would give one subtask three shards and another none, so suitable keys are chosen. Two functions hash: Beam's
`FlinkKey` the encoded key (MurmurHash3, 128 bits, Appleby 2011), and Flink's `MathUtils.murmurHash` the low word of
that (MurmurHash3, 32 bits). Only balance depends on this: if a release hashes differently, other subtasks do the work.
"""

from itertools import count

_WORD, _LONG = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


def spread_keys(shards: int, parallelism: int) -> tuple[int, ...]:
    """A key for each shard, such that subtask i gets the shards i, i + parallelism, …; `keys[i] % shards` is i.

    >>> spread_keys(3, 1)
    (0, 1, 2)
    >>> [subtask_of(key, 3) for key in spread_keys(6, 3)]
    [0, 1, 2, 0, 1, 2]
    """
    return tuple(
        next(key for key in count(shard, shards) if subtask_of(key, parallelism) == shard % parallelism)
        for shard in range(shards)
    )


def subtask_of(key: int, parallelism: int) -> int:
    """The subtask, out of `parallelism`, that processes an integer key (0 ≤ key < 2^56).

    >>> [subtask_of(key, 4) for key in range(4)]
    [2, 2, 1, 0]
    """
    return _murmur(_key_hash(_varint(key))) % parallelism


def _varint(value: int) -> bytes:
    """As Beam's VarIntCoder encodes it: seven bits a byte, the lowest first."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _key_hash(encoded: bytes) -> int:
    """The low word of MurmurHash3's 128 bits, of at most eight bytes with seed 0."""
    size = len(encoded)
    first = _rotated(int.from_bytes(encoded, "little") * 0x87C37B91114253D5 & _LONG, 31, 64) * 0x4CF5AD432745937F
    first = (first & _LONG ^ size) + size & _LONG
    second = first + size & _LONG
    return _mixed(first) + _mixed(second) & _WORD


def _mixed(word: int) -> int:
    word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & _LONG
    word = (word ^ word >> 33) * 0xC4CEB9FE1A85EC53 & _LONG
    return word ^ word >> 33


def _murmur(word: int) -> int:
    """MurmurHash3's 32 bits, of four bytes with seed 0, made non-negative."""
    word = word * 0xCC9E2D51 & _WORD
    word = _rotated(word, 15, 32) * 0x1B873593 & _WORD
    word = (_rotated(word, 13, 32) * 5 + 0xE6546B64) & _WORD
    word ^= 4
    word = (word ^ word >> 16) * 0x85EBCA6B & _WORD
    word = (word ^ word >> 13) * 0xC2B2AE35 & _WORD
    word ^= word >> 16
    return word if word < 1 << 31 else (1 << 32) - word & 0x7FFF_FFFF


def _rotated(word: int, by: int, bits: int) -> int:
    return (word << by | word >> bits - by) & ((1 << bits) - 1)
