"""Chunks: rows of a file as raw columns with their line numbers. Every file reader yields them."""

import gzip
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.configuration.streams.events import EventColumns
from pipeline.errors import InputError

CHUNK_ROWS = 32_768
"""Rows per chunk. A file is always cut at the same rows, so that an interrupted ingest can continue at a cut."""


@dataclass(frozen=True)
class Sizes:
    """How a file is read. What its rows are depends on `row_bytes` only.

    Attributes:
        chunk_rows: rows per chunk, at most.
        chunk_bytes: a chunk of a text file ends with the row that reaches this, so that memory is bounded.
        row_bytes: longest row of a text file; a longer one is a bad row.
        piece_bytes: bytes of a CSV file that are read at once.
    """

    chunk_rows: int = CHUNK_ROWS
    chunk_bytes: int = 64 << 20
    row_bytes: int = 4 << 20
    piece_bytes: int = 4 << 20


SIZES = Sizes()


@dataclass(frozen=True)
class BadRow:
    """A row that does not become an event.

    Attributes:
        line: its line; in a file without lines its row, from 1.
        why: what is wrong with it.
        original: its bytes.
        reason: the reason of its dead letter.
    """

    line: int
    why: str
    original: bytes
    reason: Literal["undecodable", "time_out_of_range"] = "undecodable"


@dataclass(frozen=True)
class Chunk:
    """n consecutive rows of a file.

    Attributes:
        columns: [n] raw columns, not converted.
        lines: [n] int64, line of each row in the file.
        malformed: rows that could not be split into columns.
        original: returns the text of row i.
        fraction: share of the file read up to the end of this chunk, 0 to 1.
        unseen: declared columns that no row of the chunk has, if the format allows that.
    """

    columns: pa.RecordBatch
    lines: npt.NDArray[np.int64]
    malformed: list[BadRow]
    original: Callable[[int], bytes]
    fraction: float
    unseen: frozenset[str] = frozenset()


class Content:
    """The content of a file, decompressed if its name ends in `.gz`. Not thread-safe.

    It is read by the calling thread alone: a reader in a thread of Arrow may outlive the interpreter and abort it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = max(path.stat().st_size, 1)
        zipped = path.name.lower().endswith(".gz")
        self.stream: IO[bytes] = cast(IO[bytes], gzip.GzipFile(fileobj=self._file)) if zipped else self._file

    @property
    def fraction(self) -> float:
        """Share of the file that was read, 0 to 1."""
        return min(self._file.tell() / self._size, 1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()
        self._file.close()


def required_columns(columns: EventColumns) -> list[str]:
    """The declared columns, the event time first."""
    return list(dict.fromkeys([columns.time, *columns.columns]))


def check_columns(path: Path, wanted: Iterable[str], names: Sequence[str]) -> None:
    """Raise InputError if `names`, the columns of a file, lack one of `wanted` or have it twice."""
    missing = [name for name in wanted if name not in names]
    if missing:
        has = ", ".join(name if len(name) <= 40 else name[:40] + "…" for name in names[:100]) or "no columns"
        hint = "hint: rename it there, or change time and columns of the event in springtide.toml"
        raise InputError(f"{path} lacks column {', '.join(missing)}, it has {has}. {hint}")
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise InputError(f"{path} has column {', '.join(twice)} twice. hint: rename one of them")
