"""Raw columns of a file's chunk to typed events: the rows that convert, and the rows to set aside with the reason."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.configuration.config import EventColumns, Events
from pipeline.errors import InputError
from pipeline.ingest.chunk import BadRow, Chunk
from pipeline.ingest.convert import convert, convert_time

ENOUGH_ROWS = 10
"""So many rows, all of them wrong in one way, are the file's fault and not the rows'."""


@dataclass(frozen=True)
class Rows:
    """Typed events of one chunk, in file order: `batch` has `at` (int64 ms) first, then the declared columns."""

    batch: pa.RecordBatch
    bad: list[BadRow]


def to_rows(chunk: Chunk, events: Events, columns: EventColumns) -> Rows:
    """Convert a chunk's columns to their declared types; no row's trouble touches another row."""
    at, late = convert_time(chunk.columns.column(columns.time), columns.time_unit)
    arrays, failed = [at], [late]
    for name, declared in columns.columns.items():
        array, wrong = convert(chunk.columns.column(name), declared)
        arrays.append(array)
        failed.append(wrong)
    batch = pa.RecordBatch.from_arrays(arrays, ["at", *columns.columns])
    why = _reasons(chunk, batch, failed, events, columns)
    bad = [BadRow(int(chunk.lines[row]), why[row], chunk.original(row)) for row in sorted(why)]
    bad = sorted([*chunk.broken, *bad], key=lambda row: row.line)
    if not why:
        return Rows(batch, bad)
    good = np.ones(batch.num_rows, dtype=bool)
    good[list(why)] = False
    return Rows(batch.filter(pa.array(good)), bad)


def check_first(path: Path, chunk: Chunk, columns: EventColumns) -> None:
    """Raise InputError where the first chunk shows that the whole file is wrong."""
    if not chunk.columns.num_rows and len(chunk.broken) >= ENOUGH_ROWS:
        row = chunk.broken[0]
        raise InputError(
            f"{path} has no readable row; line {row.line}: {row.why}. hint: compare its format with springtide.toml"
        )
    for name in [columns.time, *columns.columns]:
        raw = chunk.columns.column(name)
        filled = raw.is_valid().to_numpy(zero_copy_only=False)
        if filled.sum() < ENOUGH_ROWS:
            continue
        wanted = f"time_unit {columns.time_unit}" if name == columns.time else columns.columns[name]
        if _failed(raw, name, columns)[filled].all():
            sample = _shown(raw[int(np.flatnonzero(filled)[0])])
            text = f"has values like {sample}, springtide.toml says {wanted}"
            raise InputError(f"{path} column {name} {text}. hint: correct one of the two")


def _failed(raw: pa.Array, name: str, columns: EventColumns) -> npt.NDArray[np.bool_]:
    if name == columns.time:
        return convert_time(raw, columns.time_unit)[1]
    return convert(raw, columns.columns[name])[1]


def _reasons(
    chunk: Chunk, batch: pa.RecordBatch, failed: list[npt.NDArray[np.bool_]], events: Events, columns: EventColumns
) -> dict[int, str]:
    """Why each bad row is bad: the first column that does not convert, or a key or time that is not there."""
    why: dict[int, str] = {}
    names = [columns.time, *columns.columns]
    kinds = [f"a time in {columns.time_unit}", *columns.columns.values()]
    for name, kind, wrong in zip(names, kinds, failed, strict=True):
        for row in np.flatnonzero(wrong):
            why.setdefault(int(row), f"column {name} is {_shown(chunk.columns.column(name)[row])}, wanted {kind}")
    for name in dict.fromkeys(["at", *events.key, *events.partition_by]):
        column = batch.column(name)
        if column.null_count:
            for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)):
                why.setdefault(int(row), f"column {columns.time if name == 'at' else name} is empty")
    return why


def _shown(value: pa.Scalar) -> str:
    plain = value.as_py()
    text = plain.decode("utf-8", "backslashreplace") if isinstance(plain, bytes) else str(plain)
    return repr(text if len(text) <= 40 else text[:40] + "…")
