"""Chunks: some rows of a file as raw columns, with the line each row stands in. What every file reader yields."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.configuration.config import EventColumns
from pipeline.errors import InputError

CHUNK_ROWS = 32_768
"""A chunk's rows. The same file is always cut at the same rows, so an interrupted ingest can go on at a cut."""


@dataclass(frozen=True)
class BadRow:
    """A row set aside: its line (or row number, counted from 1, where a file has no lines), why, and its text."""

    line: int
    why: str
    original: bytes


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file, as the file has them; n rows.

    Attributes:
        columns: [n] raw columns, untouched.
        lines: [n] where each row stands in the file.
        broken: rows that could not even be split into columns.
        original: the text of row i.
        fraction: how much of the file is behind this chunk's end, 0 to 1.
    """

    columns: pa.RecordBatch
    lines: npt.NDArray[np.int64]
    broken: list[BadRow]
    original: Callable[[int], bytes]
    fraction: float


def wanted_columns(columns: EventColumns) -> list[str]:
    """The columns a file must have, the time first."""
    return list(dict.fromkeys([columns.time, *columns.columns]))


def require(path: Path, columns: EventColumns, found: list[str]) -> None:
    """Raise InputError where the file lacks a declared column."""
    missing = [name for name in wanted_columns(columns) if name not in found]
    if missing:
        has = ", ".join(found) or "no columns"
        hint = "hint: rename it there, or change time and columns of the event in springtide.toml"
        raise InputError(f"{path} lacks column {', '.join(missing)}, it has {has}. {hint}")


def plain_bytes(path: Path, file: BinaryIO) -> Any:
    """The content of an open file, unpacked where its name ends in `.gz`."""
    return pa.CompressedInputStream(pa.PythonFile(file, "r"), "gzip") if path.name.lower().endswith(".gz") else file


def read_through(path: Path) -> None:
    """Unpack a gzipped file once for nothing: one that is cut raises OSError here, before any row of it is kept."""
    if not path.name.lower().endswith(".gz"):
        return
    with path.open("rb") as file:
        stream = plain_bytes(path, file)
        while stream.read(1 << 20):
            pass
