"""Reads Avro containers. A damaged one is refused as a whole; a value of a wrong type costs its row."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import fastavro
import fastavro.read
import numpy as np
import pyarrow as pa

from pipeline.configuration.streams.events import EventColumns
from pipeline.errors import InputError
from pipeline.ingest.files.chunk import SIZES, BadRow, Chunk, Content, Sizes, check_columns, required_columns
from pipeline.logs.events.objects import columns_of

_PACKAGES = {"snappy": "cramjam", "zstandard": "backports.zstd", "lz4": "lz4"}
"""By codec the package that decompresses it."""


def read_avro(path: Path, columns: EventColumns, sizes: Sizes = SIZES) -> Iterator[Chunk]:
    """Yield the chunks of an Avro container. Raises InputError."""
    with Content(path) as content:
        rows, line = _rows(path, columns, content.stream), 1
        while part := list(islice(rows, sizes.chunk_rows)):
            yield _chunk(part, columns, line, content.fraction)
            line += len(part)


def _rows(path: Path, columns: EventColumns, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    codec = "null"
    try:
        reader = fastavro.reader(file)
        codec = reader.codec
        schema = reader.writer_schema
        fields = schema.get("fields", []) if isinstance(schema, dict) else []
        check_columns(path, required_columns(columns), [field["name"] for field in fields])
        for row in reader:
            assert isinstance(row, dict)
            yield row
    except (InputError, GeneratorExit):
        raise
    except Exception as failure:  # fastavro raises EOFError, ValueError, struct.error and others for foreign bytes
        raise InputError(f"{path} cannot be read as .avro: {_problem(failure, codec)}") from failure


def _problem(failure: Exception, codec: str) -> str:
    """What is wrong and the way out: another codec, a package, or a complete file."""
    if codec not in fastavro.read.BLOCK_READERS:
        return f"codec {codec} is unknown. hint: write it with deflate, {', '.join(_PACKAGES)} or without compression"
    if codec in _PACKAGES and "install" in str(failure):
        return f"codec {codec} needs the package {_PACKAGES[codec]}. run: pip install {_PACKAGES[codec]}"
    return f"{failure or type(failure).__name__}. hint: is it complete? fetch or write it again"


def _chunk(rows: list[dict[str, Any]], columns: EventColumns, line: int, fraction: float) -> Chunk:
    batch, reasons = columns_of(rows, columns)
    malformed = [BadRow(line + row, why, _as_json(rows[row], columns)) for row, why in sorted(reasons.items())]
    good = np.array([row for row in range(len(rows)) if row not in reasons], np.int64)

    def original(row: int) -> bytes:
        return _as_json(rows[good[row]], columns)

    return Chunk(batch.take(pa.array(good)), good + line, malformed, original, fraction)


def _as_json(row: dict[str, Any], columns: EventColumns) -> bytes:
    return json.dumps({name: row.get(name) for name in required_columns(columns)}, default=str).encode()
