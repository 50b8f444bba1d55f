"""Keys: XXH64 of feature values, read from Arrow's buffers; and event ids and shards, computed from keys.

The Python interface of `native/keys/keys`. These values are part of stored formats (samples, rows, versions) and must
never change; golden tests fix them. Nothing is converted silently: a column of an unsupported type is refused.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.errors import InputError

UInt64s = npt.NDArray[np.uint64]

_MAX_SEED = 2**64 - 1
_ID_SEEDS = (0x1D, 0x2D)
_SHARD_SEED = 0x5A
_SUPPORTED = "string, binary, int64, uint64, double, bool, a dictionary of these or a list of these"


def hash_column(array: pa.Array, seed: int) -> UInt64s:
    """The keys of a column's values.

    Args:
        array: [n] string, binary, int64, uint64, double or bool (or dictionary-encoded); a list column gives the keys
            of its flattened values, without null lists.
        seed: 0..2^64-1, different for each field.

    Returns:
        [n] uint64; a null has the key `null_key(seed)`. Integers hash as their 8 little-endian bytes, signed or not,
        bools as the integers 0 and 1, -0.0 as 0.0, all NaNs alike.

    Raises:
        InputError: the column has an unsupported type, or its offsets or indices are out of range.

    >>> hash_column(pa.array(["a", None]), seed=1).tolist() == [hash_bytes(b"a", 1), null_key(1)]
    True
    """
    require_integer("seed", seed, 0, _MAX_SEED)
    if not isinstance(array, pa.Array):
        raise InputError(f"column: got {type(array).__name__}, wanted a pyarrow Array. hint: combine_chunks()")
    kind = array.type
    try:
        array.validate()  # checks buffer lengths; offsets are checked where they are used
    except pa.ArrowInvalid as failure:
        raise _damaged(kind, failure) from None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _check_lists(array)
        return hash_column(array.flatten(), seed)
    if pa.types.is_dictionary(kind):
        return _hash_dictionary(array, seed)
    out = np.empty(len(array), np.uint64)
    if pa.types.is_null(kind):
        out[:] = null_key(seed)
    elif len(array):
        _hash_plain(array, kind, seed, out)
    else:
        _hasher(kind)
    return out


def combine_keys(keys: Sequence[UInt64s], seed: int) -> UInt64s:
    """Combine the keys of each row into one; their order matters.

    Args:
        keys: one or more [n] uint64.
        seed: 0..2^64-1.

    Returns:
        [n] uint64: XXH64 of the concatenated little-endian bytes of each row's keys.

    Raises:
        InputError: no columns, or columns of different length or dtype.
    """
    require_integer("seed", seed, 0, _MAX_SEED)
    if len(keys) == 0:
        raise InputError("keys: got no columns, wanted at least one")
    n = np.size(keys[0])
    for i, column in enumerate(keys):
        require_array(f"keys[{i}]", column, np.uint64, (n,))
    out = np.empty(n, np.uint64)
    _native.combine(np.stack(keys, axis=1), seed, out)
    return out


def ids128(batch: pa.RecordBatch, names: Sequence[str]) -> UInt64s:
    """128-bit ids of rows by the named columns: [n, 2] uint64. Equal rows have equal ids; a collision is negligible.

    Raises InputError if a column is missing, nested or of an unsupported type.
    """
    columns = [_scalar_column(batch, name) for name in names]
    halves = [combine_keys([hash_column(c, seed) for c in columns], seed) for seed in _ID_SEEDS]
    return np.stack(halves, axis=1)


def shard_of(batch: pa.RecordBatch, names: Sequence[str], shards: int) -> npt.NDArray[np.int32]:
    """The shard of each row by the named columns: [n] int32 in 0..shards-1; fixed for the life of a topic.

    Raises InputError if a column is missing, nested or of an unsupported type.
    """
    require_integer("shards", shards, 1, 2**31 - 1)
    columns = [hash_column(_scalar_column(batch, name), _SHARD_SEED) for name in names]
    return (combine_keys(columns, _SHARD_SEED) % np.uint64(shards)).astype(np.int32)


def hash_bytes(value: bytes, seed: int) -> int:
    """XXH64 of `value`.

    >>> hex(hash_bytes(b"", 0))
    '0xef46db3751d8e999'
    """
    require_integer("seed", seed, 0, _MAX_SEED)
    if not isinstance(value, bytes):
        raise InputError(f"value: got {type(value).__name__}, wanted bytes. hint: encode()")
    return int(_native.xxh64(value, int(seed)))


def null_key(seed: int) -> int:
    """The key of a null value; it depends on the seed."""
    require_integer("seed", seed, 0, _MAX_SEED)
    return int(_native.null_key(int(seed)))


def _scalar_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    if not isinstance(batch, pa.RecordBatch):
        raise InputError(f"batch: got {type(batch).__name__}, wanted a pyarrow RecordBatch")
    indices = batch.schema.get_all_field_indices(name)
    if len(indices) != 1:
        problem = f"is there {len(indices)} times" if indices else "is missing"
        raise InputError(f"column {name} {problem}, the batch has {', '.join(batch.schema.names)}")
    column = batch.column(indices[0])
    if pa.types.is_nested(column.type):
        raise InputError(f"column {name}: got {column.type}, wanted one value per row")
    return column


def _check_lists(array: pa.ListArray) -> None:
    """Refuse offsets outside the values, which `flatten` would follow."""
    offsets = np.asarray(array.offsets)
    ascending = bool((offsets[:-1] <= offsets[1:]).all())
    if len(offsets) == 0 or (ascending and offsets[0] >= 0 and offsets[-1] <= len(array.values)):
        return
    raise _damaged(array.type, "offsets leave the values")


def _hash_dictionary(array: pa.DictionaryArray, seed: int) -> UInt64s:
    if pa.types.is_nested(array.type.value_type):
        raise InputError(f"column: got {array.type}, wanted {_SUPPORTED}. hint: cast it")
    keys: UInt64s = np.append(hash_column(array.dictionary, seed), np.uint64(null_key(seed)))
    missing = len(keys) - 1
    indices = array.indices
    lowest, highest = (limit.as_py() for limit in pc.min_max(indices).values())
    if lowest is not None and not 0 <= lowest <= highest < missing:
        raise _damaged(array.type, f"indices {lowest}..{highest} leave a dictionary of {missing}")
    if indices.null_count:
        indices = indices.cast(pa.int64()).fill_null(missing)  # a small index type may not hold `missing`
    gathered: UInt64s = keys[indices.to_numpy()]
    return gathered


def _hasher(kind: pa.DataType) -> str:
    """Name of the native function that hashes this type."""
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return "hash_texts"
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return "hash_large_texts"
    names = {
        pa.int64(): "hash_integers",
        pa.uint64(): "hash_integers",
        pa.float64(): "hash_doubles",
        pa.bool_(): "hash_booleans",
    }
    if kind not in names:
        raise InputError(f"column: got {kind}, wanted {_SUPPORTED}. hint: cast it")
    return names[kind]


def _hash_plain(array: pa.Array, kind: pa.DataType, seed: int, out: UInt64s) -> None:
    hasher, start, n = _hasher(kind), array.offset, len(array)
    validity, *buffers = array.buffers()
    bitmap = None if validity is None else _view(validity, np.uint8)
    call = getattr(_native, hasher)
    try:
        if hasher == "hash_booleans":
            call(_view(buffers[0], np.uint8), bitmap, start, int(seed), out)
        elif len(buffers) == 1:
            dtype = np.int64 if hasher == "hash_integers" else np.float64
            call(_view(buffers[0], dtype)[start : start + n], bitmap, start, int(seed), out)
        else:
            offsets = _view(buffers[0], np.int32 if hasher == "hash_texts" else np.int64)[start : start + n + 1]
            call(offsets, _view(buffers[1], np.uint8), bitmap, start, int(seed), out)
    except ValueError as failure:
        raise _damaged(kind, failure) from None


def _damaged(kind: pa.DataType, reason: object) -> InputError:
    return InputError(f"column of {kind} is damaged: {reason}. hint: validate(full=True) finds the row")


def _view(buffer: pa.Buffer | None, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The buffer's memory as an array, copied if it is not aligned; Arrow omits empty buffers."""
    if buffer is None or buffer.size == 0:
        return np.empty(0, dtype)
    view = np.frombuffer(buffer, dtype, buffer.size // np.dtype(dtype).itemsize)
    return view if view.flags.aligned else view.copy()
