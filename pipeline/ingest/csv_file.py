"""CSV files, plain or gzipped. Every value is bytes until a cast checks it, so one bad value costs one row.

Lines are rows counted from the header, 1: a quoted line break does not count. Empty lines count but are no rows.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from pipeline.ground.config import EventColumns
from pipeline.ground.errors import InputError
from pipeline.ingest.chunk import CHUNK_ROWS, BadRow, Chunk, plain_bytes, require

_BLOCK_BYTES = 4 << 20


def read_csv(path: Path, columns: EventColumns) -> Iterator[Chunk]:
    """All chunks of a CSV file. Raises InputError, or Arrow's errors for a broken stream."""
    skipped: list[tuple[int, str]] = []

    def set_aside(row: Any) -> str:
        skipped.append((row.number, f"{row.actual_columns} columns, wanted {row.expected_columns}\0{row.text}"))
        return "skip"

    with path.open("rb") as file:
        header = _header(path)
        require(path, columns, header)
        reader = _reader(plain_bytes(path, file), header, set_aside)
        size, line = max(path.stat().st_size, 1), 2
        for batch in _rebatched(reader):
            # Rows set aside carry their number; the others stand where those leave room.
            numbers = np.array([number for number, _ in skipped], dtype=np.int64)
            lines = np.setdiff1d(np.arange(line, line + batch.num_rows + len(numbers)), numbers)[: batch.num_rows]
            last = int(lines[-1]) if len(lines) else line - 1
            broken = [BadRow(n, *_split(text)) for n, text in skipped if n <= last]
            skipped[:] = [(n, text) for n, text in skipped if n > last]
            line = last + 1
            yield _without_blank(batch, lines, broken, min(file.tell() / size, 1.0))
        if skipped:
            broken = [BadRow(n, *_split(text)) for n, text in skipped]
            yield _without_blank(pa.RecordBatch.from_pylist([], reader.schema), np.zeros(0, np.int64), broken, 1.0)


def _reader(stream: Any, header: list[str], set_aside: Callable[[Any], str]) -> pa_csv.CSVStreamingReader:
    return pa_csv.open_csv(
        stream,
        # One thread: only then do rows set aside carry their number.
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        parse_options=pa_csv.ParseOptions(
            newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=set_aside
        ),
        convert_options=pa_csv.ConvertOptions(
            # Bytes first: one value that is no UTF-8 must not cost its whole block.
            column_types={name: pa.binary() for name in header},
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=False,
        ),
    )


def _header(path: Path) -> list[str]:
    with path.open("rb") as file:
        first = plain_bytes(path, file).read(1 << 20).split(b"\n", 1)[0]
    try:
        names = next(csv.reader([first.decode("utf-8-sig").rstrip("\r")]), [])
    except UnicodeDecodeError:
        raise InputError(f"{path} starts with bytes that are no UTF-8 header line. hint: write it as UTF-8") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path} has column {', '.join(twice)} twice. hint: rename one of them")
    return names


def _split(text: str) -> tuple[str, bytes]:
    why, _, original = text.partition("\0")
    return why, original.encode()


def _without_blank(batch: pa.RecordBatch, lines: npt.NDArray[np.int64], broken: list[BadRow], fraction: float) -> Chunk:
    """A chunk without empty lines, which are no rows."""
    filled = np.zeros(batch.num_rows, dtype=bool)
    for column in batch.columns:
        filled |= column.is_valid().to_numpy(zero_copy_only=False)
    broken = [row for row in broken if row.original.strip()]
    if not filled.all():
        batch, lines = batch.filter(pa.array(filled)), lines[filled]

    def original(row: int) -> bytes:
        out = io.StringIO()
        values = [(column[row].as_py() or b"").decode("utf-8", "surrogateescape") for column in batch.columns]
        csv.writer(out, lineterminator="").writerow(values)
        return out.getvalue().encode("utf-8", "surrogateescape")

    return Chunk(batch, lines, broken, original, fraction)


def _rebatched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, `CHUNK_ROWS` at a time, however the reader's blocks fell."""
    parts: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        parts.append(batch)
        rows += batch.num_rows
        if rows < CHUNK_ROWS:
            continue
        everything = pa.concat_batches(parts)
        whole = rows - rows % CHUNK_ROWS
        yield from (everything.slice(start, CHUNK_ROWS) for start in range(0, whole, CHUNK_ROWS))
        parts, rows = [everything.slice(whole)], rows - whole
    if rows:
        yield pa.concat_batches(parts)
