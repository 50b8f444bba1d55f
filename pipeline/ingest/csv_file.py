"""CSV files, plain or gzipped. Every value is bytes until a cast checks it, so one bad value costs one row.

Lines are rows counted from the header, 1: a quoted line break does not count. Empty lines count but are no rows.
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

from pipeline.configuration.config import EventColumns
from pipeline.errors import InputError
from pipeline.ingest.chunk import CHUNK_ROWS, BadRow, Chunk, plain_bytes, require

_BLOCK_BYTES = 4 << 20


class _SetAside:
    """Rows with too few or too many columns, collected while Arrow parses ahead."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._rows: list[BadRow] = []

    def __call__(self, row: Any) -> str:
        why = f"{row.actual_columns} columns, wanted {row.expected_columns}"
        self._rows.append(BadRow(row.number, why, row.text.encode(self._encoding)))
        return "skip"

    def lines_between(self, line: int, count: int) -> npt.NDArray[np.int64]:
        """[count] the lines of the next `count` whole rows, the first of which may stand in `line`."""
        taken = np.array([row.line for row in self._rows], dtype=np.int64)
        return np.setdiff1d(np.arange(line, line + count + len(taken)), taken)[:count]

    def take(self, last: int | None) -> list[BadRow]:
        """The rows up to line `last` (None: all), empty lines left out; they are forgotten here."""
        taken = [row for row in self._rows if last is None or row.line <= last]
        self._rows = self._rows[len(taken) :]
        return [row for row in taken if row.original.strip()]


def read_csv(path: Path, columns: EventColumns) -> Iterator[Chunk]:
    """All chunks of a CSV file. Raises InputError, or Arrow's errors for a broken stream."""
    header = _header(path)
    require(path, columns, header)
    # Arrow shows a row set aside as text only; Latin-1 carries any bytes there and back.
    encoding = "utf8" if _is_utf8(path) else "latin1"
    set_aside = _SetAside(encoding)
    with path.open("rb") as file:
        reader = _reader(plain_bytes(path, file), header, set_aside, encoding)
        size, line = max(path.stat().st_size, 1), 2
        for batch in _rebatched(reader):
            lines = set_aside.lines_between(line, batch.num_rows)
            line = int(lines[-1]) + 1
            batch = batch if encoding == "utf8" else _as_bytes(batch)
            yield _chunk(batch, lines, set_aside.take(line - 1), min(file.tell() / size, 1.0))
        rest = set_aside.take(None)
        if rest:
            yield _chunk(pa.RecordBatch.from_pylist([], reader.schema), np.zeros(0, np.int64), rest, 1.0)


def _reader(stream: Any, header: list[str], set_aside: _SetAside, encoding: str) -> pa_csv.CSVStreamingReader:
    return pa_csv.open_csv(
        stream,
        # One thread: only then do rows set aside carry their number.
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES, encoding=encoding),
        parse_options=pa_csv.ParseOptions(
            newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=set_aside
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
        stream = plain_bytes(path, file)
        try:
            while part := stream.read(1 << 20):
                decoder.decode(part)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _as_bytes(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The bytes of the file again, of columns read as Latin-1; value by value, for files that are broken anyway."""
    columns = [
        pa.array([v if v is None else v.decode().encode("latin1") for v in column.to_pylist()], pa.binary())
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


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


def _chunk(batch: pa.RecordBatch, lines: npt.NDArray[np.int64], broken: list[BadRow], fraction: float) -> Chunk:
    """A chunk without empty lines, which are no rows."""
    filled = np.zeros(batch.num_rows, dtype=bool)
    for column in batch.columns:
        filled |= column.is_valid().to_numpy(zero_copy_only=False)
    if not filled.all():
        batch, lines = batch.filter(pa.array(filled)), lines[filled]
    return Chunk(batch, lines, broken, lambda row: _line(batch, row), fraction)


def _line(batch: pa.RecordBatch, row: int) -> bytes:
    """A row as a line of CSV again: its values are the file's, its quotes need not be."""
    out = io.StringIO()
    values = [(column[row].as_py() or b"").decode("utf-8", "surrogateescape") for column in batch.columns]
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue().encode("utf-8", "surrogateescape")


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
