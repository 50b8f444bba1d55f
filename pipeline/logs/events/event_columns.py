"""The columns of an event: their Avro and Arrow schemas from the configuration, and the lossless conversion of columns
of other types.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.arrays.block import ARROW_TYPES, EventKind
from pipeline.configuration.streams.events import EVENT_TIME, ColumnType
from pipeline.errors import DamagedError, InputError
from pipeline.formats.arrow_size import MAX_BYTES
from pipeline.formats.schemas import load_schema

AT = EVENT_TIME
_TEMPLATES: dict[EventKind, str] = {"impressions": "impression", "clicks": "click"}
_AVRO_TYPES: dict[str, Any] = {
    "string": "string",
    "int": "long",
    # Avro has no unsigned type: the long has the same 64 bits.
    "uint": {"type": "long", "unsigned": True},
    "float": "double",
    "bool": "boolean",
}


def event_document(kind: EventKind, columns: Mapping[str, ColumnType]) -> dict[str, Any]:
    """The Avro schema of single events: the template's fields, then each column as a union with null."""
    template = load_schema(_TEMPLATES[kind]).document if kind in _TEMPLATES else _feedback_template(kind)
    fields = [{"name": n, "type": ["null", _avro_type(t)], "default": None} for n, t in columns.items()]
    return {**template, "fields": [*template["fields"], *fields]}


def _feedback_template(kind: EventKind) -> dict[str, Any]:
    """That of clicks under the feedback's own name."""
    doc = f"An event of the feedback {kind}; its columns are those of events.{kind}.columns in springtide.toml."
    return {**load_schema(_TEMPLATES["clicks"]).document, "name": kind, "doc": doc}


def arrow_schema(columns: Mapping[str, ColumnType]) -> pa.Schema:
    """The columns of an EventBlock."""
    return pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind in columns.items()])


def resolve_columns(batch: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    """The columns `wanted` of a batch: a missing one is null, all others are left out.

    Raises DamagedError if a column cannot be converted to the wanted type without loss.
    """
    columns = []
    missing = sum(name not in batch.schema.names for name in wanted.names)
    if 8 * batch.num_rows * missing > MAX_BYTES:
        raise DamagedError(f"{batch.num_rows} events lack {missing} columns: too many rows of nulls for one record")
    for field in wanted:
        index = batch.schema.get_all_field_indices(field.name)
        if len(index) > 1:
            raise DamagedError(f"column {field.name} exists {len(index)} times, wanted once")
        columns.append(_resolve(batch.column(index[0]), field) if index else pa.nulls(batch.num_rows, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


def event_times(batch: pa.RecordBatch) -> pa.Array:
    """[n] int64, ms, nullable: the column `at`. Raises DamagedError if it is missing."""
    index = batch.schema.get_all_field_indices(AT)
    if len(index) != 1:
        raise DamagedError(f"column {AT} exists {len(index)} times in {', '.join(batch.schema.names)}, wanted once")
    times = batch.column(index[0])
    if pa.types.is_timestamp(times.type):
        times = _cast(times, pa.timestamp("ms", times.type.tz), AT, safe=False)
    elif not pa.types.is_integer(times.type):
        raise DamagedError(f"column {AT} is {times.type}, wanted int64 milliseconds")
    return _cast(times, pa.int64(), AT)


def _resolve(column: pa.Array, field: pa.Field) -> pa.Array:
    if column.type.equals(field.type):
        return column
    if not _fits(column.type, field.type):
        raise DamagedError(f"column {field.name} is {column.type}, its configured type is {field.type}")
    return _cast(column, field.type, field.name)


def _cast(column: pa.Array, kind: pa.DataType, name: str, safe: bool = True) -> pa.Array:
    try:
        return column.cast(kind, safe=safe)
    except pa.ArrowException as failure:
        raise DamagedError(f"column {name} cannot be converted to {kind}: {failure}") from failure


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether every value can be represented in the other type, except for overflow, which the cast detects."""
    types = pa.types
    if types.is_null(found):
        return True
    if types.is_dictionary(found):
        return _fits(found.value_type, wanted)
    if types.is_list(wanted):
        lists = types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)
        return lists and _fits(found.value_type, wanted.value_type)
    if types.is_string(wanted):
        return bool(types.is_string(found) or types.is_large_string(found) or types.is_string_view(found))
    if types.is_int64(wanted) or types.is_uint64(wanted):
        return bool(types.is_integer(found))
    if types.is_float64(wanted):
        return bool(types.is_integer(found) or types.is_floating(found))
    return bool(found.equals(wanted))


def to_avro(value: Any, kind: pa.DataType) -> Any:
    """A value of a column as its Avro type has it. Raises InputError for an integer that a uint column cannot hold.

    >>> to_avro(2**64 - 1, pa.uint64()), from_avro(-1, pa.uint64())
    (-1, 18446744073709551615)
    """
    if pa.types.is_list(kind) and isinstance(value, list):
        return [to_avro(item, kind.value_type) for item in value]
    if not pa.types.is_uint64(kind) or not isinstance(value, int):
        return value
    if not 0 <= value < 2**64:
        raise InputError(f"{value} is no unsigned integer of 64 bits. hint: declare the column int")
    return value - 2**64 if value >= 2**63 else value


def from_avro(value: Any, kind: pa.DataType) -> Any:
    """The reverse of `to_avro`."""
    if pa.types.is_list(kind) and isinstance(value, list):
        return [from_avro(item, kind.value_type) for item in value]
    return value % 2**64 if pa.types.is_uint64(kind) and isinstance(value, int) else value


def unsigned_columns(columns: pa.Schema) -> dict[str, pa.DataType]:
    """By name the types of the columns that Avro has no type for."""
    kinds = {field.name: field.type for field in columns}
    return {
        name: kind
        for name, kind in kinds.items()
        if pa.types.is_uint64(kind.value_type if pa.types.is_list(kind) else kind)
    }


def _avro_type(kind: ColumnType) -> Any:
    if kind in _AVRO_TYPES:
        return _AVRO_TYPES[kind]
    return {"type": "array", "items": _AVRO_TYPES[kind.removesuffix("s")]}
