"""Reads Parquet files. Their columns have types, so a wrong type is refused with the whole file."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.configuration.streams.events import EventColumns
from pipeline.errors import InputError
from pipeline.ingest.files.chunk import SIZES, Chunk, Sizes, check_columns, required_columns
from pipeline.logs.events.convert import can_convert, can_convert_time


def read_parquet(path: Path, columns: EventColumns, sizes: Sizes = SIZES) -> Iterator[Chunk]:
    """Yield the chunks of a Parquet file. Raises InputError, or Arrow's errors for a damaged file."""
    with pq.ParquetFile(path) as file:
        check_columns(path, required_columns(columns), file.schema_arrow.names)
        _check_types(path, columns, file.schema_arrow)
        line, total = 1, max(file.metadata.num_rows, 1)
        for batch in file.iter_batches(batch_size=sizes.chunk_rows, columns=required_columns(columns)):
            lines = np.arange(line, line + batch.num_rows)
            line += batch.num_rows
            yield Chunk(batch, lines, [], _as_json(batch), (line - 1) / total)


def _check_types(path: Path, columns: EventColumns, schema: pa.Schema) -> None:
    """Raise InputError if the type of a column cannot be converted to the declared one."""
    for name, declared in columns.columns.items():
        actual = schema.field(name).type
        if not can_convert(actual, declared):
            hint = "hint: cast it in the file, or declare its type"
            raise InputError(f"{path} column {name} is {actual}, springtide.toml declares {declared}. {hint}")
    actual = schema.field(columns.time).type
    if not can_convert_time(actual, columns.time_unit):
        hint = "hint: set time_unit in springtide.toml"
        raise InputError(f"{path} column {columns.time} is {actual}, time_unit is {columns.time_unit}. {hint}")


def _as_json(batch: pa.RecordBatch) -> Callable[[int], bytes]:
    return lambda row: json.dumps(batch.slice(row, 1).to_pylist()[0], default=str).encode()
