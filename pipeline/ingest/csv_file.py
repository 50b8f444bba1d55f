"""Reads CSV files, plain or gzipped. Values stay bytes until they are cast, so that one bad value costs one row.

Line numbers count rows from the header, line 1: a quoted line break does not count, an empty line counts without being
a row.
"""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from pipeline.configuration.events import EventColumns
from pipeline.errors import InputError
from pipeline.ingest.chunk import CHUNK_ROWS, BadRow, Chunk, check_columns, decompressed

_BLOCK_BYTES = 4 << 20


class _MalformedRows:
    """Rows with a wrong number of columns, collected by Arrow's parser, which reads ahead of the chunks."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._rows: list[BadRow] = []

    def __call__(self, row: Any) -> str:
        reason = f"{row.actual_columns} columns, wanted {row.expected_columns}"
        self._rows.append(BadRow(row.number, reason, row.text.encode(self._encoding)))
        return "skip"

    def lines_of_rows(self, line: int, count: int) -> npt.NDArray[np.int64]:
        """[count] int64, the line numbers of `count` well-formed rows, starting at `line` or later."""
        malformed = np.array([row.line for row in self._rows], dtype=np.int64)
        return np.setdiff1d(np.arange(line, line + count + len(malformed)), malformed)[:count]

    def pop(self, last_line: int | None) -> list[BadRow]:
        """Remove and return the rows up to `last_line` (None: all), without empty lines."""
        popped = [row for row in self._rows if last_line is None or row.line <= last_line]
        self._rows = self._rows[len(popped) :]
        return [row for row in popped if row.original.strip()]


def read_csv(path: Path, columns: EventColumns) -> Iterator[Chunk]:
    """Yield the chunks of a CSV file. Raises InputError, or Arrow's errors for a truncated stream."""
    header = _header(path)
    check_columns(path, columns, header)
    # Arrow passes a malformed row as text only; Latin-1 carries any bytes there and back.
    encoding = "utf8" if _is_utf8(path) else "latin1"
    malformed = _MalformedRows(encoding)
    with path.open("rb") as file:
        reader = _reader(decompressed(path, file), header, malformed, encoding)
        size, line = max(path.stat().st_size, 1), 2
        for batch in _rebatched(reader):
            lines = malformed.lines_of_rows(line, batch.num_rows)
            line = int(lines[-1]) + 1
            batch = batch if encoding == "utf8" else _as_bytes(batch)
            yield _chunk(batch, lines, malformed.pop(line - 1), min(file.tell() / size, 1.0))
        rest = malformed.pop(None)
        if rest:
            yield _chunk(pa.RecordBatch.from_pylist([], reader.schema), np.zeros(0, np.int64), rest, 1.0)


def _reader(stream: Any, header: list[str], malformed: _MalformedRows, encoding: str) -> pa_csv.CSVStreamingReader:
    return pa_csv.open_csv(
        stream,
        # Arrow numbers malformed rows only with a single thread.
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES, encoding=encoding),
        parse_options=pa_csv.ParseOptions(
            newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=malformed
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.binary() for name in header},
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=False,
        ),
    )


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        stream = decompressed(path, file)
        try:
            while part := stream.read(1 << 20):
                decoder.decode(part)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _as_bytes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The file's bytes of columns read as Latin-1. Value by value: only for files that are not valid UTF-8."""
    columns = [
        pa.array([v if v is None else v.decode().encode("latin1") for v in column.to_pylist()], pa.binary())
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _header(path: Path) -> list[str]:
    with path.open("rb") as file:
        first = decompressed(path, file).read(1 << 20).split(b"\n", 1)[0]
    try:
        names = next(csv.reader([first.decode("utf-8-sig").rstrip("\r")]), [])
    except UnicodeDecodeError:
        raise InputError(
            f"{path} starts with bytes that are not a UTF-8 header line. hint: write it as UTF-8"
        ) from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path} has column {', '.join(twice)} twice. hint: rename one of them")
    return names


def _chunk(batch: pa.RecordBatch, lines: npt.NDArray[np.int64], malformed: list[BadRow], fraction: float) -> Chunk:
    """A chunk of the rows of `batch` that are not empty lines."""
    filled = np.zeros(batch.num_rows, dtype=bool)
    for column in batch.columns:
        filled |= column.is_valid().to_numpy(zero_copy_only=False)
    if not filled.all():
        batch, lines = batch.filter(pa.array(filled)), lines[filled]
    return Chunk(batch, lines, malformed, lambda row: _line(batch, row), fraction)


def _line(batch: pa.RecordBatch, row: int) -> bytes:
    """A row formatted as CSV: the values are those of the file, the quoting may differ."""
    out = io.StringIO()
    values = [(column[row].as_py() or b"").decode("utf-8", "surrogateescape") for column in batch.columns]
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue().encode("utf-8", "surrogateescape")


def _rebatched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `CHUNK_ROWS`, independent of the reader's blocks."""
    parts: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        parts.append(batch)
        rows += batch.num_rows
        if rows < CHUNK_ROWS:
            continue
        merged = pa.concat_batches(parts)
        complete = rows - rows % CHUNK_ROWS
        yield from (merged.slice(start, CHUNK_ROWS) for start in range(0, complete, CHUNK_ROWS))
        parts, rows = [merged.slice(complete)], rows - complete
    if rows:
        yield pa.concat_batches(parts)
