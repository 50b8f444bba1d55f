"""Reads CSV files, plain or gzipped. Values stay bytes until they are cast, so that one bad value costs one row.

The native splitter (`native/wire/csv_rows`) decides what a row is, independently of how the file is cut into pieces. A
row that is none, because a quote is never closed for example, costs its line only. A line of white space is no row.
A value between separators without quotes is null if it is empty.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import pipeline._native as _native
from pipeline.configuration.streams.events import EventColumns
from pipeline.errors import InputError
from pipeline.ingest.files.chunk import (
    SIZES,
    BadRow,
    Chunk,
    Content,
    Sizes,
    check_columns,
    required_columns,
)

_HINTS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv(path: Path, columns: EventColumns, sizes: Sizes = SIZES) -> Iterator[Chunk]:
    """Yield the chunks of a CSV file. Raises InputError, or errors of a truncated stream."""
    with Content(path) as content:
        source = _Source(content, sizes)
        header = _read_header(path, source)
        check_columns(path, required_columns(columns), header)
        wanted = sorted(header.index(name) for name in required_columns(columns))
        while True:
            part = _Part([header[index] for index in wanted], np.array(wanted, np.int32), len(header))
            while part.fill(source):
                pass
            if not part.rows:
                return
            yield part.chunk(content.fraction)


class _Source:
    """The unread rest of a file. Not thread-safe.

    Attributes:
        sizes: how it is read.
        last: whether the file ends with `rest()`.
        line: physical line at which the rest begins, from 1.
        in_long_line: whether it begins inside a line that was refused as too long.
    """

    def __init__(self, content: Content, sizes: Sizes) -> None:
        self._content, self.sizes = content, sizes
        self._bytes, self._at = b"", 0
        self.last, self.line, self.in_long_line = False, 1, False

    def rest(self) -> npt.NDArray[np.uint8]:
        """[n] uint8; more than a row can have, if the file does."""
        while not self.last and len(self._bytes) - self._at <= self.sizes.row_bytes:
            piece = self._content.stream.read(self.sizes.piece_bytes)
            self._bytes, self._at = self._bytes[self._at :] + piece, 0
            self.last = not piece
        return np.frombuffer(self._bytes, np.uint8)[self._at :]

    def skip(self, consumed: int, lines: int) -> None:
        """Continue behind `consumed` bytes with `lines` physical lines."""
        self._at += consumed
        self.line += lines


@dataclass
class _Part:
    """The rows of one chunk, collected from pieces of the file.

    Attributes:
        names: [w] the wanted columns.
        wanted: [w] int32, their index in a row.
        fields: fields of a row.
        rows: rows read, with bad rows and empty lines.
    """

    names: list[str]
    wanted: npt.NDArray[np.int32]
    fields: int
    rows: int = 0
    _bytes: int = 0
    _batches: list[pa.RecordBatch] = field(default_factory=list)
    _lines: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _texts: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]] = field(
        default_factory=list
    )
    _malformed: list[BadRow] = field(default_factory=list)

    def fill(self, source: _Source) -> bool:
        """Add rows; False if the chunk is complete or the file ends."""
        rest, sizes = source.rest(), source.sizes
        rows_left, bytes_left = sizes.chunk_rows - self.rows, sizes.chunk_bytes - self._bytes
        if not len(rest) or rows_left <= 0 or bytes_left <= 0:
            return False
        columns, lines, starts, stops, bad, rows, lines_read, consumed, skipped, source.in_long_line = (
            _native.split_csv(
                rest, source.last, source.in_long_line, self.wanted, self.fields, sizes.row_bytes, rows_left, bytes_left
            )
        )
        arrays = [_array(*column) for column in columns]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, self.names))
        self._lines.append(lines + source.line)
        self._texts.append((rest, starts, stops))
        for line, start, end, problem, found in bad:
            original = rest[start:end].tobytes()
            if original.strip():
                why = _why(problem, found, self.fields, sizes)
                self._malformed.append(BadRow(line + source.line, why, original))
        self.rows += rows
        self._bytes += consumed - skipped
        source.skip(consumed, lines_read)
        return True

    def chunk(self, fraction: float) -> Chunk:
        """The rows as a chunk."""
        firsts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

        def original(row: int) -> bytes:
            number = int(np.searchsorted(firsts, row, side="right")) - 1
            text, starts, stops = self._texts[number]
            return text[starts[row - firsts[number]] : stops[row - firsts[number]]].tobytes()

        lines = np.concatenate(self._lines)
        return Chunk(pa.concat_batches(self._batches), lines, self._malformed, original, fraction)


def _array(valid: npt.NDArray[np.uint8], content: npt.NDArray[np.uint8], ends: npt.NDArray[np.int32]) -> pa.Array:
    offsets = pa.py_buffer(np.concatenate([np.zeros(1, np.int32), ends]))
    validity = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.binary(), len(ends), [validity, offsets, pa.py_buffer(content)])


def _why(problem: int, found: int, wanted: int, sizes: Sizes) -> str:
    if problem == 0:
        return f"{found} columns, wanted {wanted}"
    return (
        "",
        f"the quote that opens column {found + 1} is not closed",
        f"column {found} goes on after its closing quote",
        f"longer than {sizes.row_bytes} bytes",
    )[problem]


def _read_header(path: Path, source: _Source) -> list[str]:
    """The names of the columns. Bytes that are no UTF-8 are escaped: a name that is not declared may be anything."""
    rest = source.rest()
    if rest[:3].tobytes() == codecs.BOM_UTF8:
        source.skip(3, 0)
        rest = source.rest()
    if rest[:2].tobytes() in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise InputError(f"{path} is UTF-16. hint: write it as UTF-8")
    found: Any = _native.split_csv_header(rest, source.last)
    if found is None or found[1] > source.sizes.row_bytes:
        most = source.sizes.row_bytes
        problem = f"exceeds {most} bytes" if len(rest) > most else "has a quote that is not closed or goes on behind it"
        raise InputError(f"{path} line 1, its header, {problem}. hint: begin the file with the names of its columns")
    fields, consumed, lines = found
    source.skip(consumed, lines)
    names = [name.decode("utf-8", "backslashreplace") for name in fields]
    if len(names) == 1:
        separator = next((word for sign, word in _HINTS.items() if sign in names[0]), None)
        if separator:
            raise InputError(f"{path} has one column, {names[0][:80]!r}, separated by {separator}. hint: use commas")
    return names if names != [""] else []
