"""Keys that spread evenly over the parallel subtasks of a step on Flink.

Flink hashes a key into a key group and gives each subtask a run of groups (`KeyGroupRangeAssignment`, whose hash is
MurmurHash3 for one word). Of a handful of shards chance would give one subtask three and another none, so the keys that
stand for them are chosen. Only balance hangs on it: where a runner hashes otherwise, other subtasks do the same work.
"""

from itertools import count

_LEAST_GROUPS, _MOST_GROUPS = 128, 32_768
_WORD = 0xFFFF_FFFF


def spread_keys(shards: int, parallelism: int) -> tuple[int, ...]:
    """A key for each shard, so that subtask i gets the shards i, i + parallelism, …; `keys[i] % shards` is i.

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
    """The subtask, of so many, that gets what belongs to an integer key (≥ 0).

    >>> [subtask_of(key, 2) for key in range(4)]
    [1, 0, 0, 1]
    """
    rounded = 1 << (parallelism + parallelism // 2 - 1).bit_length()
    groups = min(max(rounded, _LEAST_GROUPS), _MOST_GROUPS)
    return _murmur(_byte_buffer_hash(_varint(key))) % groups * parallelism // groups


def _varint(value: int) -> bytes:
    """As Beam's VarIntCoder encodes it: seven bits a byte, the lowest first."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _byte_buffer_hash(encoded: bytes) -> int:
    """What Java's ByteBuffer.hashCode gives; as an unsigned word."""
    found = 1
    for byte in reversed(encoded):
        found = (31 * found + (byte - 256 if byte > 127 else byte)) & _WORD
    return found


def _murmur(word: int) -> int:
    """Flink's MathUtils.murmurHash: MurmurHash3 (Appleby 2011) of four bytes, made non-negative."""
    word = word * 0xCC9E2D51 & _WORD
    word = _rotated(word, 15) * 0x1B873593 & _WORD
    word = (_rotated(word, 13) * 5 + 0xE6546B64) & _WORD
    word ^= 4
    word = (word ^ word >> 16) * 0x85EBCA6B & _WORD
    word = (word ^ word >> 13) * 0xC2B2AE35 & _WORD
    word ^= word >> 16
    return word if word < 1 << 31 else (1 << 32) - word & 0x7FFF_FFFF


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & _WORD
