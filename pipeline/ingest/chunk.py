"""Chunks: rows of a file as raw columns with their line numbers. Every file reader yields them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.configuration.events import EventColumns
from pipeline.errors import InputError

CHUNK_ROWS = 32_768
"""Rows per chunk. A file is always cut at the same rows, so that an interrupted ingest can continue at a cut."""


@dataclass(frozen=True)
class BadRow:
    """A row that does not become an event: its line (in a file without lines its row, from 1), reason and text."""

    line: int
    reason: str
    original: bytes


@dataclass(frozen=True)
class Chunk:
    """n consecutive rows of a file.

    Attributes:
        columns: [n] raw columns, not converted.
        lines: [n] int64, line of each row in the file.
        malformed: rows that could not be split into columns.
        original: returns the text of row i.
        fraction: share of the file read up to the end of this chunk, 0 to 1.
    """

    columns: pa.RecordBatch
    lines: npt.NDArray[np.int64]
    malformed: list[BadRow]
    original: Callable[[int], bytes]
    fraction: float


def required_columns(columns: EventColumns) -> list[str]:
    """The columns that a file must have, the event time first."""
    return list(dict.fromkeys([columns.time, *columns.columns]))


def check_columns(path: Path, columns: EventColumns, names: list[str]) -> None:
    """Raise InputError if `names`, the columns of a file, lack a declared one."""
    missing = [name for name in required_columns(columns) if name not in names]
    if missing:
        has = ", ".join(names) or "no columns"
        hint = "hint: rename it there, or change time and columns of the event in springtide.toml"
        raise InputError(f"{path} lacks column {', '.join(missing)}, it has {has}. {hint}")


def decompressed(path: Path, file: BinaryIO) -> Any:
    """A stream of an open file's content, decompressed if its name ends in `.gz`."""
    return pa.CompressedInputStream(pa.PythonFile(file, "r"), "gzip") if path.name.lower().endswith(".gz") else file


def check_gzip(path: Path) -> None:
    """Decompress a gzipped file once, so that a truncated one raises OSError before any row of it is appended."""
    if not path.name.lower().endswith(".gz"):
        return
    with path.open("rb") as file:
        stream = decompressed(path, file)
        while stream.read(1 << 20):
            pass
