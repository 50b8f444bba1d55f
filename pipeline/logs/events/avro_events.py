"""Decodes many single events, one Avro record each, into columns (`native/wire/avro_events`).

A row with any irregularity is left undecoded as a whole: the caller decodes it alone and gets the error.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import pipeline._native as _native
from pipeline.errors import InputError

Int64s = npt.NDArray[np.int64]
_KINDS: dict[pa.DataType, int] = {pa.string(): 0, pa.int64(): 1, pa.uint64(): 1, pa.float64(): 2, pa.bool_(): 3}


@dataclass(frozen=True)
class DecodedEvents:
    """Events of one schema.

    Attributes:
        times: [m] int64, the first field of each event.
        columns: [m] the other fields.
        undecoded: [n - m] int64, ascending: the rows that were not decoded.
    """

    times: Int64s
    columns: pa.RecordBatch
    undecoded: Int64s


def decode_events(values: pa.BinaryArray, schema_id: int, columns: pa.Schema) -> DecodedEvents:
    """Decode [n] framed values of the schema `at` (long), then each of `columns` as a union with null.

    Args:
        values: [n] binary.
        schema_id: the schema id that their frames must have.
        columns: string, int64, uint64 (a long of the same bits), float64, bool, or lists of these.

    Raises:
        InputError: for a column of another type, or values that are not a binary array.
    """
    if not isinstance(values, pa.BinaryArray) or values.null_count:
        raise InputError(f"values: got {getattr(values, 'type', type(values).__name__)}, wanted binary without nulls")
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as failure:
        raise InputError(f"values: {failure}") from failure
    plan = [_plan(field) for field in columns]
    offsets = np.frombuffer(values.buffers()[1] or bytes(4), np.int32)[values.offset :][: len(values) + 1]
    content = np.frombuffer(values.buffers()[2] or b"", np.uint8)
    times, undecoded, found = _native.decode_events(plan, schema_id, offsets, content)
    arrays = [_array(field.type, len(times), column) for field, column in zip(columns, found, strict=True)]
    return DecodedEvents(times, pa.RecordBatch.from_arrays(arrays, schema=columns), undecoded)


def _plan(field: pa.Field) -> tuple[int, bool]:
    listed = pa.types.is_list(field.type)
    kind = field.type.value_type if listed else field.type
    if kind not in _KINDS:
        raise InputError(f"column {field.name}: got {field.type}, wanted one of {', '.join(map(str, _KINDS))} or lists")
    return _KINDS[kind], listed


def _array(kind: pa.DataType, rows: int, column: tuple[npt.NDArray[Any], ...]) -> pa.Array:
    valid, content, ends, item_ends, words = column
    validity = None if valid.all() else _bits(valid)
    if not pa.types.is_list(kind):
        return pa.Array.from_buffers(kind, rows, [validity, *_buffers(kind, content, ends, words)])
    items = int(ends[-1]) if rows else 0
    inner = pa.Array.from_buffers(kind.value_type, items, [None, *_buffers(kind.value_type, content, item_ends, words)])
    return pa.Array.from_buffers(kind, rows, [validity, _starts(ends)], children=[inner])


def _buffers(
    kind: pa.DataType, content: npt.NDArray[Any], ends: npt.NDArray[Any], words: npt.NDArray[Any]
) -> list[pa.Buffer]:
    if pa.types.is_string(kind):
        return [_starts(ends), pa.py_buffer(content)]
    return [_bits(content) if pa.types.is_boolean(kind) else pa.py_buffer(words)]


def _starts(ends: npt.NDArray[Any]) -> pa.Buffer:
    return pa.py_buffer(np.concatenate([np.zeros(1, np.int32), ends]))


def _bits(flags: npt.NDArray[Any]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))
