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
from pipeline.configuration.streams.events import ColumnType, TimeUnit

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
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type) or unit == "iso":
        return _cast_by_bisection(column, _instant_ms, pa.int64())
    return _cast_by_bisection(column, lambda part: _number_ms(part, unit), pa.int64())


def can_convert(actual: pa.DataType, declared: ColumnType) -> bool:
    """Whether a typed file's column of type `actual` can hold values of the declared type.

    >>> can_convert(pa.int32(), "float"), can_convert(pa.string(), "int")
    (True, False)
    """
    types = pa.types
    if types.is_dictionary(actual) or types.is_run_end_encoded(actual):
        return can_convert(actual.value_type, declared)
    if types.is_null(actual):
        return True
    if types.is_list(ARROW_TYPES[declared]):
        return _is_list(actual) and can_convert(actual.value_type, declared.removesuffix("s"))  # type: ignore[arg-type]
    if declared == "string":
        return _is_text(actual)
    if declared == "bool":
        return bool(types.is_boolean(actual))
    return bool(types.is_integer(actual) or types.is_floating(actual) or types.is_decimal(actual))


def can_convert_time(actual: pa.DataType, unit: TimeUnit) -> bool:
    """Whether a typed file's column can hold event times in `unit`."""
    if pa.types.is_dictionary(actual) or pa.types.is_run_end_encoded(actual):
        return can_convert_time(actual.value_type, unit)
    if pa.types.is_timestamp(actual) or pa.types.is_date(actual) or pa.types.is_null(actual):
        return True
    return can_convert(actual, "string" if unit == "iso" else "float")


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or views)


def _is_text(kind: pa.DataType) -> bool:
    """Whether values are text, or bytes that a cast checks: some writers do not mark their text as UTF-8."""
    types = pa.types
    texts = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(texts or types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


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
    """The column as plain numbers, strings, binary values or lists of these."""
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        return _decoded(column.dictionary_decode())
    if types.is_run_end_encoded(kind):
        return _decoded(pc.run_end_decode(column))
    if types.is_large_string(kind) or types.is_string_view(kind):
        return column.cast(pa.string())
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return column.cast(pa.binary())
    if not _is_list(kind):
        return column
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    return _lists(lengths, _decoded(column.flatten()), column.is_null())


def _lists(lengths: npt.NDArray[np.int64], values: pa.Array, null: pa.Array | None) -> pa.Array:
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, values, mask=null)


def _text(part: pa.Array) -> pa.Array:
    """Strings without white space around them; null if nothing is left. Raises ArrowInvalid unless valid UTF-8."""
    trimmed = pc.utf8_trim_whitespace(part.cast(pa.string()))
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _is_bytes_or_text(part: pa.Array) -> bool:
    return bool(pa.types.is_binary(part.type) or pa.types.is_string(part.type))


def _cast(part: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_list(wanted):
        return _cast_list(part, wanted)
    if not _is_bytes_or_text(part) or pa.types.is_string(wanted):
        return part.cast(wanted)
    text = _text(part)
    if pa.types.is_integer(wanted):
        return _integers(text, wanted)
    values = text.cast(wanted)
    if pa.types.is_floating(wanted):
        _check_range(text, values)
    return values


def _cast_list(part: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_null(part.type):
        return part.cast(wanted)
    if not _is_bytes_or_text(part):
        lengths = pc.list_value_length(part).fill_null(0).to_numpy(zero_copy_only=False)
        return _lists(lengths, _cast(part.flatten(), wanted.value_type), part.is_null())
    # Text has no notation for an empty list or a null in one: an empty value is an empty list, an empty element none.
    split = pc.split_pattern(part.cast(pa.string()).fill_null(""), LIST_SEPARATOR)
    values = _text(split.flatten())
    filled = values.is_valid()
    lengths = np.bincount(pc.list_parent_indices(split).filter(filled).to_numpy(), minlength=len(part))
    return _lists(lengths, _cast(values.filter(filled), wanted.value_type), None)


def _integers(text: pa.Array, wanted: pa.DataType) -> pa.Array:
    try:
        return text.cast(wanted)
    except pa.ArrowInvalid:
        # Tools whose integer columns have no nulls write them as 3.0.
        return pc.replace_substring_regex(text, r"^\+?(-?[0-9]+)(\.0*)?$", r"\1").cast(wanted)


def _check_range(text: pa.Array, values: pa.Array) -> None:
    """Raise ArrowInvalid if a number of digits is too large for a float, which a cast makes infinite."""
    infinite = pc.is_inf(values).fill_null(False)
    if infinite.true_count and pc.any(pc.match_substring_regex(text.filter(infinite), "[0-9]")).as_py():
        raise pa.ArrowInvalid("number out of range")


def _number_ms(part: pa.Array, unit: TimeUnit) -> pa.Array:
    if _is_bytes_or_text(part):
        part = _text(part)
    try:
        number = part.cast(pa.int64())
    except pa.ArrowInvalid:
        # Fractions: float64 represents present-day milliseconds exactly.
        return pc.round(pc.divide(part.cast(pa.float64()), _PER_MS[unit])).cast(pa.int64())
    if unit == "s":
        return pc.multiply_checked(number, 1000)
    return number if unit == "ms" else pc.divide(number, 1000)


def _instant_ms(part: pa.Array) -> pa.Array:
    if _is_bytes_or_text(part):
        part = _text(part)
        try:
            part = part.cast(pa.timestamp("ns", "UTC"))
        except pa.ArrowInvalid:
            # An instant without a zone is UTC.
            part = part.cast(pa.timestamp("ns"))
    elif pa.types.is_date(part.type):
        part = part.cast(pa.timestamp("ms"))
    return pc.floor_temporal(part, unit="millisecond").cast(pa.timestamp("ms", part.type.tz)).cast(pa.int64())
