"""JSON lines, plain or gzipped: one object per line. A line that does not parse costs that line only."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.json as pa_json

from pipeline.arrays.block import ARROW_TYPES
from pipeline.configuration.config import EventColumns
from pipeline.ingest.chunk import CHUNK_ROWS, BadRow, Chunk, plain_bytes, read_through, require


def read_jsonl(path: Path, columns: EventColumns) -> Iterator[Chunk]:
    """All chunks of a file of JSON lines. Raises InputError."""
    read_through(path)
    time_type = pa.string() if columns.time_unit == "iso" else pa.float64()
    schema = pa.schema(
        [(columns.time, time_type), *((n, ARROW_TYPES[t]) for n, t in columns.columns.items() if n != columns.time)]
    )
    with path.open("rb") as file:
        stream = plain_bytes(path, file)
        size, line = max(path.stat().st_size, 1), 1
        for lines in _lines(stream):
            numbers = np.arange(line, line + len(lines))
            line += len(lines)
            full = np.array([bool(text.strip()) for text in lines], dtype=bool)
            numbers, texts = numbers[full], [text for text in lines if text.strip()]
            if numbers.size and numbers[0] == 1:
                require(path, columns, [n for n in schema.names if any(f'"{n}"'.encode() in text for text in texts)])
            batch, parsed = _json_rows(texts, schema)
            broken = [
                BadRow(int(numbers[i]), _json_problem(texts[i], schema), texts[i]) for i in np.flatnonzero(~parsed)
            ]
            kept = [texts[i] for i in np.flatnonzero(parsed)]
            yield Chunk(batch, numbers[parsed], broken, kept.__getitem__, min(file.tell() / size, 1.0))


def _lines(stream: Any) -> Iterator[list[bytes]]:
    """Lines without their ends, `CHUNK_ROWS` at a time."""
    reader = io.BufferedReader(stream, 1 << 20)
    lines: list[bytes] = []
    for text in reader:
        lines.append(text.rstrip(b"\r\n"))
        if len(lines) == CHUNK_ROWS:
            yield lines
            lines = []
    if lines:
        yield lines


def _json_rows(texts: list[bytes], schema: pa.Schema) -> tuple[pa.RecordBatch, npt.NDArray[np.bool_]]:
    """Rows of all lines that parse, and [n] bool which ones do; halves until the others stand alone."""
    if not texts:
        return pa.RecordBatch.from_pylist([], schema), np.zeros(0, dtype=bool)
    batch = _json_batch(texts, schema)
    if batch is not None:
        return batch, np.ones(len(texts), dtype=bool)
    if len(texts) == 1:
        return pa.RecordBatch.from_pylist([], schema), np.zeros(1, dtype=bool)
    middle = len(texts) // 2
    left, right = _json_rows(texts[:middle], schema), _json_rows(texts[middle:], schema)
    return pa.concat_batches([left[0], right[0]]), np.concatenate([left[1], right[1]])


def _json_batch(texts: list[bytes], schema: pa.Schema) -> pa.RecordBatch | None:
    """The rows of lines that all parse, else None."""
    joined = b"\n".join(texts)
    read_options = pa_json.ReadOptions(use_threads=False, block_size=len(joined) + 1)
    parse_options = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        joined.decode()
        table = pa_json.read_json(io.BytesIO(joined), read_options=read_options, parse_options=parse_options)
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    # Two objects on one line would parse as two rows.
    return table.combine_chunks().to_batches()[0] if table.num_rows == len(texts) else None


def _json_problem(text: bytes, schema: pa.Schema) -> str:
    try:
        document = json.loads(text)
    except ValueError as failure:
        return f"no JSON: {failure}"
    if not isinstance(document, dict):
        return f"a JSON {type(document).__name__}, wanted an object"
    for field in schema:
        if _json_batch([text], pa.schema([field])) is None:
            return f"column {field.name} is {json.dumps(document.get(field.name))}, wanted {field.type}"
    return "not one JSON object"
