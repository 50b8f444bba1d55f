"""Reads Parquet files and Avro containers. Their columns have types, so a wrong type is refused with the whole file."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.configuration.events import EventColumns
from pipeline.errors import InputError
from pipeline.ingest.chunk import CHUNK_ROWS, Chunk, check_columns, required_columns
from pipeline.ingest.convert import can_convert, can_convert_time


def read_parquet(path: Path, columns: EventColumns) -> Iterator[Chunk]:
    """Yield the chunks of a Parquet file. Raises InputError, or Arrow's errors for a damaged file."""
    with pq.ParquetFile(path) as file:
        check_columns(path, columns, file.schema_arrow.names)
        _check_types(path, columns, file.schema_arrow)
        line, total = 1, max(file.metadata.num_rows, 1)
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=required_columns(columns)):
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


def read_avro(path: Path, columns: EventColumns) -> Iterator[Chunk]:
    """Yield the chunks of an Avro container. Raises InputError."""
    with path.open("rb") as file:
        rows = _avro_rows(path, columns, file)
        size, line = max(path.stat().st_size, 1), 1
        while True:
            part = list(islice(rows, CHUNK_ROWS))
            if not part:
                return
            yield _avro_chunk(path, columns, part, line, min(file.tell() / size, 1.0))
            line += len(part)


def _avro_rows(path: Path, columns: EventColumns, file: BinaryIO) -> Iterator[dict[str, Any]]:
    try:
        # A truncated container must fail before any row of it is appended; this pass only skips over the blocks.
        for _ in fastavro.block_reader(file):
            pass
        file.seek(0)
        reader = fastavro.reader(file)
        schema = reader.writer_schema
        fields = schema.get("fields", []) if isinstance(schema, dict) else []
        check_columns(path, columns, [field["name"] for field in fields])
        for row in reader:
            assert isinstance(row, dict)
            yield row
    except (InputError, GeneratorExit):
        raise
    except Exception as failure:  # fastavro raises EOFError, ValueError, struct.error and others for foreign bytes
        what = failure or type(failure).__name__
        raise InputError(
            f"{path} cannot be read as .avro: {what}. hint: is it complete? fetch or write it again"
        ) from failure


def _avro_chunk(path: Path, columns: EventColumns, rows: list[dict[str, Any]], line: int, fraction: float) -> Chunk:
    names = required_columns(columns)
    try:
        batch = pa.RecordBatch.from_arrays([pa.array([row[n] for row in rows]) for n in names], names)
    except (pa.ArrowException, TypeError) as failure:
        raise InputError(
            f"{path} has a column of mixed types: {failure}. hint: write it with one type per column"
        ) from failure
    _check_types(path, columns, batch.schema)
    return Chunk(batch, np.arange(line, line + len(rows)), [], _as_json(batch), fraction)


def _as_json(batch: pa.RecordBatch) -> Callable[[int], bytes]:
    return lambda row: json.dumps(batch.slice(row, 1).to_pylist()[0], default=str).encode()
