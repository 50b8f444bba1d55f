"""The declared transforms: from raw Arrow columns to the values that are hashed. Pure and vectorised.

Each works on single values and, if that makes sense, on the elements of lists. A null stays null; its hash is the
field's fixed "missing" key.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.types import Float64s, Int64s

MS_PER_HOUR = 3_600_000
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

NumberTransform = Callable[[Float64s], Int64s]


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this Arrow type are lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def flatten(array: pa.Array) -> tuple[pa.Array, Int64s]:
    """Elements and offsets of an array of n rows.

    Returns:
        (elements [m], offsets [n + 1] int64): row i holds `elements[offsets[i]:offsets[i + 1]]`; a single value is one
        element, a null or empty list none.

    >>> elements, offsets = flatten(pa.array([["a", "b"], None, ["c"]]))
    >>> elements.to_pylist(), offsets.tolist()
    (['a', 'b', 'c'], [0, 2, 2, 3])
    """
    if not is_list(array.type):
        return array, one_each(len(array))
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(lengths.to_numpy(zero_copy_only=False), out=offsets[1:])
    return array.flatten(), offsets


@lru_cache(maxsize=4)
def one_each(rows: int) -> Int64s:
    """Offsets [rows + 1] of rows with one element each; not writeable.

    >>> one_each(2).tolist()
    [0, 1, 2]
    """
    offsets = np.arange(rows + 1, dtype=np.int64)
    offsets.flags.writeable = False
    return offsets


def lengths_of(array: pa.Array) -> Int64s:
    """[n] the number of elements of each list, 0 if it is null; a single value is one element."""
    _, offsets = flatten(array)
    return np.diff(offsets)


def truncate(elements: pa.Array, offsets: Int64s, length: int, keep: str) -> tuple[pa.Array, Int64s]:
    """The `keep` ("last" or "first") `length` elements of every row, in their order; the form of `flatten`.

    >>> elements, offsets = truncate(pa.array(["a", "b", "c", "d"]), np.array([0, 3, 4]), 2, "last")
    >>> elements.to_pylist(), offsets.tolist()
    (['b', 'c', 'd'], [0, 2, 3])
    """
    lengths = np.diff(offsets)
    kept = np.minimum(lengths, length)
    if len(lengths) == 0 or int(lengths.max()) <= length:
        return elements, offsets
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
    first = offsets[1:] - kept if keep == "last" else offsets[:-1]
    places = np.arange(ends[-1]) + np.repeat(first - ends[:-1], kept)
    return elements.take(pa.array(places)), ends


def normalise(array: pa.Array) -> pa.Array:
    """The array in one of the types that are hashed: string, binary, int64, uint64, float64, bool, or a list of these.

    Raises pa.ArrowInvalid or pa.ArrowNotImplementedError if values would be lost.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    wanted = _hashed_type(array.type)
    return array if array.type == wanted else array.cast(wanted)


def bucket(array: pa.Array, boundaries: tuple[float, ...]) -> pa.Array:
    """Index of the first boundary that is not exceeded, or the number of boundaries. int64.

    >>> bucket(pa.array([0.0, 1.0, 1.5, 9.0, None]), (1.0, 5.0)).to_pylist()
    [0, 0, 1, 2, None]
    """
    uppers = np.asarray(boundaries, np.float64)
    return _over_numbers(array, lambda x: np.searchsorted(uppers, x, side="left").astype(np.int64))


def log2(array: pa.Array) -> pa.Array:
    """⌊log2(1 + x)⌋, and −1 for everything below zero. int64.

    Computed from the exponent, not by a logarithm: the same on every machine.

    >>> log2(pa.array([0, 1, 2, 3, 6, 7, -5])).to_pylist()
    [0, 1, 1, 2, 2, 3, -1]
    """
    return _over_numbers(array, lambda x: np.where(x < 0, 0, np.frexp(np.abs(x) + 1)[1]).astype(np.int64) - 1)


def hour(at_ms: Int64s) -> pa.Array:
    """Hour of the day, 0–23, UTC.

    >>> hour(np.array([0, 3_599_999, 3_600_000, 90_000_000])).to_pylist()
    [0, 0, 1, 1]
    """
    return pa.array(at_ms // MS_PER_HOUR % 24)


def weekday(at_ms: Int64s) -> pa.Array:
    """Day of the week, Monday is 0, UTC.

    >>> weekday(np.array([0, 4 * 86_400_000 - 1, 4 * 86_400_000])).to_pylist()
    [3, 6, 0]
    """
    return pa.array((at_ms // (24 * MS_PER_HOUR) + 3) % 7)


def bucket_text(index: int, boundaries: tuple[float, ...]) -> str:
    """The range of a bucket, for the operator.

    >>> [bucket_text(i, (1.0, 5.0)) for i in range(3)]
    ['≤ 1', '(1, 5]', '> 5']
    """
    if index == 0:
        return f"≤ {boundaries[0]:g}"
    if index == len(boundaries):
        return f"> {boundaries[-1]:g}"
    return f"({boundaries[index - 1]:g}, {boundaries[index]:g}]"


def log2_text(index: int) -> str:
    """The range of a power of two, for the operator.

    >>> [log2_text(i) for i in (-1, 0, 3)]
    ['< 0', '[0, 1)', '[7, 15)']
    """
    return "< 0" if index < 0 else f"[{2**index - 1}, {2 ** (index + 1) - 1})"


def _over_numbers(array: pa.Array, transform: NumberTransform) -> pa.Array:
    """Apply to each number; the result of a null or a number that is not finite is null."""
    elements, offsets = flatten(array)
    numbers = elements.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    finite = np.isfinite(numbers)
    result = pa.array(transform(np.where(finite, numbers, 0.0)), mask=~finite)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), result) if is_list(array.type) else result


def _hashed_type(kind: pa.DataType) -> pa.DataType:
    if is_list(kind):
        return pa.list_(_hashed_type(kind.value_type))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_integer(kind):
        return kind if pa.types.is_uint64(kind) else pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_boolean(kind):
        return kind
    raise pa.ArrowInvalid(f"{kind} cannot be hashed")
