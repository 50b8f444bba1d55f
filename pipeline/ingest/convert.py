"""Converts raw columns to declared types and finds the values that do not convert.

A column is cast in one call. If that fails it is bisected until each failing value is isolated: k failures in n values
cost O(k log n) casts.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import ARROW_TYPES
from pipeline.configuration.events import ColumnType, TimeUnit

Mask = npt.NDArray[np.bool_]
LIST_SEPARATOR = "|"
"""Separates the values of a ragged column in a text file."""

_PER_MS = {"s": 1e-3, "ms": 1.0, "us": 1e3}


def convert(column: pa.Array, declared: ColumnType) -> tuple[pa.Array, Mask]:
    """Convert `column` to its declared type.

    Returns:
        The converted column, null for a value that does not convert, and [n] bool, true for those values only.

    >>> values, failed = convert(pa.array(["1", "x", None]), "int")
    >>> values.to_pylist(), failed.tolist()
    ([1, None, None], [False, True, False])
    """
    wanted = ARROW_TYPES[declared]
    column = _decoded(column)
    if column.type.equals(wanted):
        return column, np.zeros(len(column), dtype=bool)
    return _cast_by_bisection(column, lambda part: _cast(part, wanted), wanted)


def convert_time(column: pa.Array, unit: TimeUnit) -> tuple[pa.Array, Mask]:
    """Convert event times to int64 ms since 1970. For a typed timestamp column its type decides, not `unit`.

    >>> convert_time(pa.array(["1.5", "2"]), "s")[0].to_pylist()
    [1500, 2000]
    """
    column = _decoded(column)
    if pa.types.is_timestamp(column.type) or unit == "iso":
        return _cast_by_bisection(column, _instant_ms, pa.int64())
    return _cast_by_bisection(column, lambda part: _number_ms(part, unit), pa.int64())


def can_convert(actual: pa.DataType, declared: ColumnType) -> bool:
    """Whether a typed file's column of type `actual` can hold values of the declared type.

    >>> can_convert(pa.int32(), "float"), can_convert(pa.string(), "int")
    (True, False)
    """
    if pa.types.is_dictionary(actual):
        return can_convert(actual.value_type, declared)
    if pa.types.is_null(actual):
        return True
    wanted = ARROW_TYPES[declared]
    if pa.types.is_list(wanted):
        ragged = pa.types.is_list(actual) or pa.types.is_large_list(actual)
        return ragged and can_convert(actual.value_type, declared.removesuffix("s"))  # type: ignore[arg-type]
    if declared == "string":
        return bool(pa.types.is_string(actual) or pa.types.is_large_string(actual))
    if declared == "bool":
        return bool(pa.types.is_boolean(actual))
    return bool(pa.types.is_integer(actual) or pa.types.is_floating(actual) or pa.types.is_decimal(actual))


def can_convert_time(actual: pa.DataType, unit: TimeUnit) -> bool:
    """Whether a typed file's column can hold event times in `unit`."""
    if pa.types.is_timestamp(actual) or pa.types.is_null(actual):
        return True
    return can_convert(actual, "string" if unit == "iso" else "float")


def _cast_by_bisection(
    part: pa.Array, cast: Callable[[pa.Array], pa.Array], wanted: pa.DataType
) -> tuple[pa.Array, Mask]:
    try:
        return cast(part), np.zeros(len(part), dtype=bool)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError):
        if len(part) == 1:
            return pa.nulls(1, wanted), np.ones(1, dtype=bool)
    middle = len(part) // 2
    left, left_failed = _cast_by_bisection(part.slice(0, middle), cast, wanted)
    right, right_failed = _cast_by_bisection(part.slice(middle), cast, wanted)
    return pa.concat_arrays([left, right]), np.concatenate([left_failed, right_failed])


def _decoded(column: pa.Array) -> pa.Array:
    """The column without dictionary encoding or large strings; bytes stay bytes until a cast checks them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _cast(part: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_binary(part.type):
        part = part.cast(pa.string())
    if pa.types.is_list(wanted) and pa.types.is_string(part.type):
        # Text has no notation for an empty list: an empty value is one.
        part = pc.fill_null(pc.utf8_trim_whitespace(part), "")
        empty_list = pa.scalar([], pa.list_(pa.string()))
        part = pc.if_else(pc.equal(part, ""), empty_list, pc.split_pattern(part, LIST_SEPARATOR))
    elif pa.types.is_string(part.type) and not pa.types.is_string(wanted):
        part = pc.utf8_trim_whitespace(part)
    return part.cast(wanted)


def _number_ms(part: pa.Array, unit: TimeUnit) -> pa.Array:
    if pa.types.is_binary(part.type):
        part = part.cast(pa.string())
    if pa.types.is_string(part.type):
        part = pc.utf8_trim_whitespace(part)
    try:
        number = part.cast(pa.int64())
    except pa.ArrowInvalid:
        # Fractions: float64 represents present-day milliseconds exactly.
        return pc.round(pc.divide(part.cast(pa.float64()), _PER_MS[unit])).cast(pa.int64())
    if unit == "s":
        return pc.multiply_checked(number, 1000)
    return number if unit == "ms" else pc.divide(number, 1000)


def _instant_ms(part: pa.Array) -> pa.Array:
    if pa.types.is_binary(part.type):
        part = part.cast(pa.string())
    if pa.types.is_string(part.type):
        try:
            part = part.cast(pa.timestamp("ns", "UTC"))
        except pa.ArrowInvalid:
            # An instant without a zone is UTC.
            part = part.cast(pa.timestamp("ns"))
    return pc.floor_temporal(part, unit="millisecond").cast(pa.timestamp("ms", part.type.tz)).cast(pa.int64())
