"""Rows that are Python objects, as JSON and Avro give them, as typed columns. One wrong value costs its row only."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import ARROW_TYPES
from pipeline.configuration.streams.events import ColumnType, EventColumns, TimeUnit

Row = Mapping[str, Any]
_EXACT_FLOAT = 2**53
"""Up to here a float holds one integer only."""
_SIMPLE: dict[str, frozenset[type]] = {
    "string": frozenset({str}),
    "int": frozenset({int}),
    "uint": frozenset({int}),
    "float": frozenset({float, int}),
    "bool": frozenset({bool}),
}
"""Python types of values that Arrow converts at once."""
_UNITS_PER_MS = {"s": Decimal("0.001"), "ms": Decimal(1), "us": Decimal(1000)}


def columns_of(rows: Sequence[Row], columns: EventColumns) -> tuple[pa.RecordBatch, dict[int, str]]:
    """The declared columns of [n] rows, and by bad row the reason.

    Returns:
        [n] columns, null where a row has no value or a wrong one; the time column is int64 in its unit, text, or a
        timestamp.
    """
    times, wrong_times = _times([row.get(columns.time) for row in rows], columns.time_unit)
    arrays, names, reasons = [times], [columns.time], {}
    wanted_time = pa.string() if columns.time_unit == "iso" else pa.float64()
    for row in wrong_times:
        reasons[row] = f"column {columns.time} is {shown(rows[row][columns.time])}, wanted {wanted_time}"
    for name, declared in columns.columns.items():
        if name == columns.time:
            continue
        values = [row.get(name) for row in rows]
        array, wrong = _typed(values, declared)
        arrays.append(array)
        names.append(name)
        for row in wrong:
            reasons.setdefault(row, f"column {name} is {shown(values[row])}, wanted {ARROW_TYPES[declared]}")
    return pa.RecordBatch.from_arrays(arrays, names), reasons


def shown(value: Any) -> str:
    """A value as JSON, shortened.

    >>> shown({"a": [1, None]})
    '{"a": [1, null]}'
    """
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:60] + "…"


def _typed(values: list[Any], declared: ColumnType) -> tuple[pa.Array, list[int]]:
    """[n] values of the declared type, and the rows whose value has another one."""
    wanted = ARROW_TYPES[declared]
    simple = _SIMPLE[declared.removesuffix("s") if pa.types.is_list(wanted) else declared]
    if _kinds(values) <= (frozenset({list}) if pa.types.is_list(wanted) else simple):
        items = chain.from_iterable(v for v in values if v is not None) if pa.types.is_list(wanted) else ()
        try:
            if set(map(type, items)) - {type(None)} <= simple:
                return pa.array(values, wanted), []
        except (pa.ArrowException, OverflowError, ValueError):
            pass
    converted, wrong = _each(values, lambda value: _one(value, declared))
    return pa.array(converted, wanted), wrong


def _each(values: list[Any], convert: Callable[[Any], Any]) -> tuple[list[Any], list[int]]:
    """[n] converted values, None for null and for those that cannot be converted, and the rows of the latter."""
    converted, wrong = [], []
    for row, value in enumerate(values):
        try:
            converted.append(None if value is None else convert(value))
        except (TypeError, ValueError, ArithmeticError):
            converted.append(None)
            wrong.append(row)
    return converted, wrong


def _kinds(values: list[Any]) -> frozenset[type]:
    return frozenset(map(type, values)) - {type(None)}


def _one(value: Any, declared: str) -> Any:
    """A value of the declared type. Raises TypeError, ValueError or ArithmeticError."""
    if pa.types.is_list(ARROW_TYPES[declared]):
        if not isinstance(value, list | tuple):
            raise TypeError
        return [None if item is None else _one(item, declared.removesuffix("s")) for item in value]
    if declared == "string":
        text: str = value.decode() if isinstance(value, bytes) else _instance(value, str)
        text.encode()  # a lone surrogate is no text
        return text
    if declared == "bool":
        return _instance(value, bool)
    if isinstance(value, bool):
        raise TypeError
    if declared == "float":
        return float(_instance(value, int, float, Decimal))
    return pa.scalar(_integer(value), ARROW_TYPES[declared]).as_py()


def _instance(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds):
        raise TypeError
    return value


def _integer(value: Any) -> int:
    """The integer that a number is. Raises ValueError for a fraction, or a float that may be one of several."""
    integer = int(_instance(value, int, float, Decimal))
    if integer != value or (isinstance(value, float) and abs(value) > _EXACT_FLOAT):
        raise ValueError
    return integer


def _times(values: list[Any], unit: TimeUnit) -> tuple[pa.Array, list[int]]:
    kinds = _kinds(values)
    try:
        if kinds <= {int} and unit != "iso":
            return pa.array(values, pa.int64()), []
        if kinds <= {str} and unit == "iso":
            return pa.array(values, pa.string()), []
    except (pa.ArrowException, OverflowError, ValueError):
        pass
    converted, wrong = _each(values, lambda value: _time_ms(value, unit))
    return pa.array(converted, pa.int64()).cast(pa.timestamp("ms", "UTC")), wrong


def _time_ms(value: Any, unit: TimeUnit) -> int:
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        return int(pc.floor_temporal(pa.scalar(value), unit="millisecond").cast(pa.timestamp("ms", "UTC")).value)
    if isinstance(value, date):
        return _time_ms(datetime(value.year, value.month, value.day), unit)
    if unit == "iso":
        return _iso_ms(_instance(value, str))
    if isinstance(value, bool):
        raise TypeError
    scaled = Decimal(_instance(value, int, float, Decimal)) / _UNITS_PER_MS[unit]
    ms = int(scaled // 1) if isinstance(value, int) else int(scaled.to_integral_value())
    return int(pa.scalar(ms, pa.int64()).as_py())


def _iso_ms(text: str) -> int:
    time = datetime.fromisoformat(text)
    return _time_ms(time, "iso")
