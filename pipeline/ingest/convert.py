"""Values to declared types, whole columns at a time; finds the values that do not convert without looking at each.

A cast either holds for a whole column, or the column is halved until the offenders stand alone: k of n cost O(k log n).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import ARROW_TYPES
from pipeline.configuration.config import ColumnType, TimeUnit

Mask = npt.NDArray[np.bool_]
LIST_SEPARATOR = "|"
"""Between the values of a ragged column in a text file."""

_PER_MS = {"s": 1e-3, "ms": 1.0, "us": 1e3}


def convert(column: pa.Array, declared: ColumnType) -> tuple[pa.Array, Mask]:
    """`column` as its declared type.

    Returns:
        The converted column, null where a value does not convert, and [n] bool, true just there.

    >>> values, failed = convert(pa.array(["1", "x", None]), "int")
    >>> values.to_pylist(), failed.tolist()
    ([1, None, None], [False, True, False])
    """
    wanted = ARROW_TYPES[declared]
    column = _text(column)
    if column.type.equals(wanted):
        return column, np.zeros(len(column), dtype=bool)
    return _by_halves(column, lambda part: _cast(part, wanted), wanted)


def convert_time(column: pa.Array, unit: TimeUnit) -> tuple[pa.Array, Mask]:
    """Event times as int64 ms since 1970; a typed timestamp column means what its type says, whatever `unit`.

    >>> convert_time(pa.array(["1.5", "2"]), "s")[0].to_pylist()
    [1500, 2000]
    """
    column = _text(column)
    if pa.types.is_timestamp(column.type) or unit == "iso":
        return _by_halves(column, _instant_ms, pa.int64())
    return _by_halves(column, lambda part: _number_ms(part, unit), pa.int64())


def fits(found: pa.DataType, declared: ColumnType) -> bool:
    """Whether values of a typed file's column can be of the declared type at all.

    >>> fits(pa.int32(), "float"), fits(pa.string(), "int")
    (True, False)
    """
    if pa.types.is_dictionary(found):
        return fits(found.value_type, declared)
    if pa.types.is_null(found):
        return True
    wanted = ARROW_TYPES[declared]
    if pa.types.is_list(wanted):
        ragged = pa.types.is_list(found) or pa.types.is_large_list(found)
        return ragged and fits(found.value_type, declared.removesuffix("s"))  # type: ignore[arg-type]
    if declared == "string":
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    if declared == "bool":
        return bool(pa.types.is_boolean(found))
    return bool(pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found))


def time_fits(found: pa.DataType, unit: TimeUnit) -> bool:
    """Whether a typed file's column can hold event times in `unit`."""
    if pa.types.is_timestamp(found) or pa.types.is_null(found):
        return True
    return fits(found, "string" if unit == "iso" else "float")


def _by_halves(part: pa.Array, cast: Callable[[pa.Array], pa.Array], wanted: pa.DataType) -> tuple[pa.Array, Mask]:
    try:
        return cast(part), np.zeros(len(part), dtype=bool)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError):
        if len(part) == 1:
            return pa.nulls(1, wanted), np.ones(1, dtype=bool)
    middle = len(part) // 2
    left, left_failed = _by_halves(part.slice(0, middle), cast, wanted)
    right, right_failed = _by_halves(part.slice(middle), cast, wanted)
    return pa.concat_arrays([left, right]), np.concatenate([left_failed, right_failed])


def _text(column: pa.Array) -> pa.Array:
    """Dictionaries decoded, large and view types narrowed; bytes stay bytes until a cast checks them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _cast(part: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_binary(part.type):
        part = part.cast(pa.string())
    if pa.types.is_list(wanted) and pa.types.is_string(part.type):
        # Text has no empty list of its own: nothing at all is one.
        part = pc.fill_null(pc.utf8_trim_whitespace(part), "")
        nothing = pa.scalar([], pa.list_(pa.string()))
        part = pc.if_else(pc.equal(part, ""), nothing, pc.split_pattern(part, LIST_SEPARATOR))
    elif pa.types.is_string(part.type) and not pa.types.is_string(wanted):
        part = pc.utf8_trim_whitespace(part)
    return part.cast(wanted)


def _number_ms(part: pa.Array, unit: TimeUnit) -> pa.Array:
    if pa.types.is_binary(part.type):
        part = part.cast(pa.string())
    if pa.types.is_string(part.type):
        part = pc.utf8_trim_whitespace(part)
    try:
        whole = part.cast(pa.int64())
    except pa.ArrowInvalid:
        # Fractions: float64 holds today's milliseconds exactly.
        return pc.round(pc.divide(part.cast(pa.float64()), _PER_MS[unit])).cast(pa.int64())
    if unit == "s":
        return pc.multiply_checked(whole, 1000)
    return whole if unit == "ms" else pc.divide(whole, 1000)


def _instant_ms(part: pa.Array) -> pa.Array:
    if pa.types.is_binary(part.type):
        part = part.cast(pa.string())
    if pa.types.is_string(part.type):
        try:
            part = part.cast(pa.timestamp("ns", "UTC"))
        except pa.ArrowInvalid:
            # Without a zone, UTC is meant.
            part = part.cast(pa.timestamp("ns"))
    return pc.floor_temporal(part, unit="millisecond").cast(pa.timestamp("ms", part.type.tz)).cast(pa.int64())
