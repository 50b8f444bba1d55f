"""From instances as serving receives them, JSON objects of raw columns, to the columns that training reads.

Names that are no impression columns and values of another type are refused: a misspelt column would otherwise be a
silent null in every prediction.
"""

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import ARROW_TYPES
from pipeline.arrays.types import Bools, Int64s
from pipeline.errors import InputError
from pipeline.process.instant import parse_instant

_INT64 = range(-(2**63), 2**63)
_RANGES = {"int": _INT64, "float": _INT64, "uint": range(2**64)}
"""Integers that a column of the type can have."""
_DIGITS = re.compile("-?[0-9]{1,20}")
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 60


def batch_of(
    instances: Sequence[Any], types: Mapping[str, str], now_ms: int, first: int = 0
) -> tuple[pa.RecordBatch, Int64s]:
    """Columns and times of n instances.

    Args:
        instances: one JSON object each: column name → value; a missing column is null. `at`, the impression's time, is
            an ISO 8601 text or a number of ms. An int may also be a text of digits, because scripts round numbers
            above 2**53.
        types: declared type by column.
        now_ms: the time of instances without one.
        first: the number of the first instance in errors.

    Returns:
        (batch with every declared column, [n] int64 times in ms).

    Raises:
        InputError: names instance and column, the value and what was wanted.
    """
    for number, instance in enumerate(instances, first):
        _check(number, instance, types)
    columns = [_column(name, kind, instances) for name, kind in types.items()]
    times = [_time(number, instance.get("at"), now_ms) for number, instance in enumerate(instances, first)]
    return pa.RecordBatch.from_arrays(columns, names=list(types)), np.array(times, np.int64)


def check_finite(batch: pa.RecordBatch, first: int = 0) -> None:
    """Raise InputError for a number that is not finite; it names instance, counted from `first`, and column."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values = column.flatten() if pa.types.is_list(column.type) else column
        if not pa.types.is_floating(values.type):
            continue
        finite = _finite(values)
        if not finite.all():
            place = int(np.argmin(finite))
            row = pc.list_parent_indices(column)[place].as_py() if values is not column else place
            raise InputError(
                f"instance {first + row}, column {name}: got {values[place].as_py()}, wanted a finite number"
            )


def _finite(values: pa.Array) -> Bools:
    """[n] whether a number is finite; null is."""
    if not values.null_count:  # NumPy, unlike Arrow, keeps the interpreter for a few numbers
        return np.asarray(np.isfinite(values.to_numpy()), np.bool_)
    return np.asarray(pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False), np.bool_)


def instance_of_texts(
    values: Mapping[str, str], types: Mapping[str, str], separator: str | None = None
) -> dict[str, Any]:
    """An instance from texts of a command line. Raises InputError.

    The text of a list column is one element, or with `separator` several.

    >>> instance_of_texts({"user": "7", "tags": "red"}, {"user": "int", "tags": "strings"})
    {'user': 7, 'tags': ['red']}
    >>> instance_of_texts({"tags": "1|2"}, {"tags": "ints"}, separator="|")
    {'tags': [1, 2]}
    """
    instance: dict[str, Any] = {}
    for name, text in values.items():
        if name == "at":
            instance["at"] = int(text) if text.lstrip("-").isdecimal() else text
            continue
        kind = types[name]
        if not kind.endswith("s"):
            instance[name] = _parse(name, kind, text)
            continue
        elements = text.split(separator) if separator else [text]
        instance[name] = [
            _parse(name, kind.removesuffix("s"), element) for element in elements if element or not separator
        ]
    return instance


def _check(number: int, instance: Any, types: Mapping[str, str]) -> None:
    if not isinstance(instance, dict):
        raise InputError(f"instance {number} is {_shown(instance)}, wanted an object of columns")
    for name, value in instance.items():
        if name == "at":
            continue
        if name not in types:
            raise InputError(
                f"instance {number} has column {name[:60]}, which impressions do not have. known: {', '.join(types)}"
            )
        if value is not None and not _fits(value, types[name]):
            raise InputError(f"instance {number}, column {name}: got {_shown(value)}, wanted {types[name]}")


def _fits(value: Any, kind: str) -> bool:
    if kind.endswith("s"):
        single = kind.removesuffix("s")
        return isinstance(value, list) and all(v is None or _fits(v, single) for v in value)
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    if isinstance(value, int):
        return value in _RANGES.get(kind, range(0))
    if isinstance(value, str) and kind in ("int", "uint"):
        return _DIGITS.fullmatch(value) is not None and int(value) in _RANGES[kind]
    return isinstance(value, float) if kind == "float" else kind == "string" and _is_text(value)


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can express
        return False


def _column(name: str, kind: str, instances: Sequence[Any]) -> pa.Array:
    values = [instance.get(name) for instance in instances]
    if kind in ("int", "uint"):
        values = [int(value) if isinstance(value, str) else value for value in values]
    if kind in ("ints", "uints"):
        values = [None if v is None else [int(e) if isinstance(e, str) else e for e in v] for v in values]
    if kind == "float":
        values = [None if value is None else float(value) for value in values]
    if kind == "floats":
        values = [None if v is None else [None if e is None else float(e) for e in v] for v in values]
    return pa.array(values, ARROW_TYPES[kind])


def _time(number: int, value: Any, now_ms: int) -> int:
    if value is None:
        return now_ms
    if isinstance(value, int) and not isinstance(value, bool) and value in _INT64:
        return value
    try:
        return parse_instant(value)
    except (TypeError, ValueError):
        wanted = "wanted ms since 1970 or a time as 2025-01-31T12:00:00Z"
        raise InputError(f"instance {number}, column at: got {_shown(value)}, {wanted}") from None


def _parse(name: str, kind: str, text: str) -> Any:
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        return {"string": str, "int": int, "uint": int, "float": float}[kind](text)
    except (KeyError, ValueError):
        raise InputError(f"column {name}: got {text!r}, wanted {kind}") from None


def _shown(value: Any) -> str:
    text = _SHOWN.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
