"""Decodes single events that are JSON objects, one per record, by the rules for JSON lines.

An object has the time under the configured name and unit, and the declared columns; other properties are ignored. A
record that is no such object is named with its reason, and costs only itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json

from pipeline.arrays.types import Int64s
from pipeline.configuration.streams.events import EventColumns
from pipeline.logs.events.convert import convert_time
from pipeline.logs.events.objects import Row, columns_of, shown

MAX_OBJECT_BYTES = 4 << 20
"""Longest JSON object."""

_JSON_NAMES = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", list: "array"}


@dataclass(frozen=True)
class JsonEvents:
    """Events of [n] records.

    Attributes:
        times: [m] int64, ms.
        columns: [m] the declared columns.
        bad: by record, the reason why it is no event; n - m of them.
    """

    times: Int64s
    columns: pa.RecordBatch
    bad: Mapping[int, str]


def decode_json_events(values: Sequence[bytes], columns: EventColumns, schema: pa.Schema) -> JsonEvents:
    """Decode [n] records; `schema` has the declared columns.

    >>> columns = EventColumns(time="t", time_unit="s", columns={"user": "string"})
    >>> values = [b'{"t": 5, "user": "a"}', b'null', b'{"user": "b"}']
    >>> events = decode_json_events(values, columns, pa.schema([("user", pa.string())]))
    >>> events.times.tolist(), events.columns.to_pylist(), dict(events.bad)
    ([5000], [{'user': 'a'}], {1: 'a JSON null, wanted an object', 2: 'column t is empty'})
    """
    rows, places, bad = list[Row](), list[int](), dict[int, str]()
    names = [columns.time, *columns.columns]
    for number, value in enumerate(values):
        try:
            rows.append(json_object(value, names))
            places.append(number)
        except ValueError as failure:
            bad[number] = str(failure)
    batch, reasons = columns_of(rows, columns)
    reasons |= {row: why for row, why in out_of_range(batch).items() if row not in reasons}
    times, failed = convert_time(batch.column(columns.time), columns.time_unit)
    for row in np.flatnonzero(times.is_null().to_numpy(zero_copy_only=False)).tolist():
        text = f"is {shown(rows[row].get(columns.time))}, wanted a time in {columns.time_unit}"
        reasons.setdefault(row, f"column {columns.time} {text if failed[row] else 'is empty'}")
    bad |= {places[row]: why for row, why in reasons.items()}
    good = pa.array([row for row in range(len(rows)) if row not in reasons], pa.int64())
    arrays = [times if name not in batch.schema.names else batch.column(name) for name in schema.names]
    found = pa.RecordBatch.from_arrays([array.take(good) for array in arrays], schema=schema)
    return JsonEvents(times.take(good).to_numpy(zero_copy_only=False), found, bad)


def json_object(text: bytes, names: Sequence[str], most_bytes: int = MAX_OBJECT_BYTES) -> Row:
    """The object of one text, of which `names` are read. Raises ValueError with what is wrong."""
    if len(text) > most_bytes:
        raise ValueError(f"longer than {most_bytes} bytes")
    try:
        document = from_json(text, allow_inf_nan=False, cache_strings="keys")
    except ValueError as failure:
        raise ValueError(f"not JSON: {failure}") from None
    if not isinstance(document, dict):
        raise ValueError(f"a JSON {_JSON_NAMES[type(document)]}, wanted an object")
    # A name may be written twice in full or with escapes; the parser keeps the last.
    if b"\\u00" in text or any(text.count(b'"%b"' % name.encode()) > 1 for name in names):
        _check_duplicates(text, names)
    return document


def out_of_range(batch: pa.RecordBatch) -> dict[int, str]:
    """By row the reason, for numbers too large for a float: JSON has no infinity."""
    reasons: dict[int, str] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values, parents = column, None
        if pa.types.is_list(column.type):
            values, parents = column.flatten(), pc.list_parent_indices(column)
        if not pa.types.is_floating(values.type):
            continue
        for index in np.flatnonzero(pc.is_inf(values).fill_null(False).to_numpy(zero_copy_only=False)).tolist():
            row = index if parents is None else parents[index].as_py()
            reasons.setdefault(row, f"column {name} holds a number too large for {values.type}")
    return reasons


def _check_duplicates(text: bytes, names: Sequence[str]) -> None:
    def pairs(found: list[tuple[str, Any]]) -> list[str]:
        return [name for name, _ in found]

    outer: list[str] = json.loads(text, object_pairs_hook=pairs)
    twice = [name for name in names if outer.count(name) > 1]
    if twice:
        raise ValueError(f"column {', '.join(twice)} is there twice")
