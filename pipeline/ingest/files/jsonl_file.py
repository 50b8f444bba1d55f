"""Reads JSON lines, plain or gzipped: one object per line. A line that is none costs that line only."""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from pipeline.configuration.streams.events import EventColumns
from pipeline.ingest.files.chunk import (
    SIZES,
    BadRow,
    Chunk,
    Content,
    Sizes,
    check_columns,
    required_columns,
)
from pipeline.logs.events.json_events import json_object, out_of_range
from pipeline.logs.events.objects import Row, columns_of


def read_jsonl(path: Path, columns: EventColumns, keys: Sequence[str], sizes: Sizes = SIZES) -> Iterator[Chunk]:
    """Yield the chunks of a file of JSON lines. A declared column that no line has is null, except for time and keys.

    Raises InputError, or errors of a truncated stream.
    """
    with Content(path) as content:
        line, first = 1, True
        for texts in _lines(content.stream, sizes):
            filled = [(number, text) for number, text in enumerate(texts, line) if text.strip()]
            chunk = _chunk(filled, columns, sizes, content.fraction)
            line += len(texts)
            if first and chunk.columns.num_rows:
                names = [name for name in required_columns(columns) if name not in chunk.unseen]
                check_columns(path, [columns.time, *keys], names)
                first = False
            yield chunk


def _chunk(lines: list[tuple[int, bytes]], columns: EventColumns, sizes: Sizes, fraction: float) -> Chunk:
    rows: list[Row] = []
    numbers: list[int] = []
    texts: list[bytes] = []
    malformed: list[BadRow] = []
    names = required_columns(columns)
    for number, text in lines:
        try:
            rows.append(json_object(text, names, sizes.row_bytes))
            numbers.append(number)
            texts.append(text)
        except ValueError as failure:
            malformed.append(BadRow(number, str(failure), text))
    batch, reasons = columns_of(rows, columns)
    reasons |= {row: why for row, why in out_of_range(batch).items() if row not in reasons}
    malformed += [BadRow(numbers[row], why, texts[row]) for row, why in reasons.items()]
    malformed.sort(key=lambda bad: bad.line)
    good = np.array([row for row in range(len(rows)) if row not in reasons], np.int64)
    unseen = frozenset(names) - frozenset().union(*rows)
    lines_of_rows = np.array(numbers, np.int64)[good]
    return Chunk(batch.take(pa.array(good)), lines_of_rows, malformed, lambda i: texts[good[i]], fraction, unseen)


def _lines(stream: IO[bytes], sizes: Sizes) -> Iterator[list[bytes]]:
    """Lines without line ends, a chunk each time; a line that is too long is cut."""
    lines: list[bytes] = []
    size, begin = 0, True
    # A line that is cut is longer than row_bytes also without its line end and a byte-order mark.
    most = sizes.row_bytes + 6
    while text := stream.readline(most):
        size += len(text)
        _skip_rest(stream, text, most)
        if begin:
            text, begin = text.removeprefix(codecs.BOM_UTF8), False
        lines.append(text.removesuffix(b"\n").removesuffix(b"\r"))
        if len(lines) == sizes.chunk_rows or size >= sizes.chunk_bytes:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines


def _skip_rest(stream: IO[bytes], text: bytes, most: int) -> None:
    while len(text) == most and not text.endswith(b"\n"):
        text = stream.readline(most)
