"""Reads JSON lines, plain or gzipped: one object per line. A line that does not parse costs that line only."""

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
from pipeline.configuration.events import EventColumns
from pipeline.ingest.chunk import CHUNK_ROWS, BadRow, Chunk, check_columns, check_gzip, decompressed


def read_jsonl(path: Path, columns: EventColumns) -> Iterator[Chunk]:
    """Yield the chunks of a file of JSON lines. Raises InputError."""
    check_gzip(path)
    time_type = pa.string() if columns.time_unit == "iso" else pa.float64()
    schema = pa.schema(
        [(columns.time, time_type), *((n, ARROW_TYPES[t]) for n, t in columns.columns.items() if n != columns.time)]
    )
    with path.open("rb") as file:
        stream = decompressed(path, file)
        size, line = max(path.stat().st_size, 1), 1
        for lines in _lines(stream):
            numbers = np.arange(line, line + len(lines))
            line += len(lines)
            filled = np.array([bool(text.strip()) for text in lines], dtype=bool)
            numbers, texts = numbers[filled], [text for text in lines if text.strip()]
            if numbers.size and numbers[0] == 1:
                names = [n for n in schema.names if any(f'"{n}"'.encode() in text for text in texts)]
                check_columns(path, columns, names)
            batch, parsed = _json_rows(texts, schema)
            malformed = [
                BadRow(int(numbers[i]), _json_problem(texts[i], schema), texts[i]) for i in np.flatnonzero(~parsed)
            ]
            parsed_texts = [texts[i] for i in np.flatnonzero(parsed)]
            yield Chunk(batch, numbers[parsed], malformed, parsed_texts.__getitem__, min(file.tell() / size, 1.0))


def _lines(stream: Any) -> Iterator[list[bytes]]:
    """Lines without line ends, in lists of `CHUNK_ROWS`."""
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
    """The rows of the lines that parse, and [n] bool, true for those lines; bisects to isolate the others."""
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
    """The rows of the lines; None unless every line is one row."""
    joined = b"\n".join(texts)
    read_options = pa_json.ReadOptions(use_threads=False, block_size=len(joined) + 1)
    parse_options = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        joined.decode()
        table = pa_json.read_json(io.BytesIO(joined), read_options=read_options, parse_options=parse_options)
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    # Two objects on one line parse as two rows.
    return table.combine_chunks().to_batches()[0] if table.num_rows == len(texts) else None


def _json_problem(text: bytes, schema: pa.Schema) -> str:
    try:
        document = json.loads(text)
    except ValueError as failure:
        return f"not JSON: {failure}"
    if not isinstance(document, dict):
        return f"a JSON {type(document).__name__}, wanted an object"
    for field in schema:
        if _json_batch([text], pa.schema([field])) is None:
            return f"column {field.name} is {json.dumps(document.get(field.name))}, wanted {field.type}"
    return "not one JSON object"
