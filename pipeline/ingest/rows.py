"""Converts the raw columns of a chunk to typed events; rows that do not convert are returned with the reason."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.configuration.streams.events import EventColumns, Events
from pipeline.errors import InputError
from pipeline.ingest.files.chunk import BadRow, Chunk
from pipeline.ingest.times import TimeLimits
from pipeline.logs.events.convert import convert, convert_time

MIN_ROWS_TO_REFUSE_FILE = 10
"""If at least this many rows of the first chunk all fail in the same way, the whole file is refused."""


@dataclass(frozen=True)
class ConvertedRows:
    """Typed events of one chunk, in file order: `batch` has `at` (int64 ms) first, then the declared columns."""

    batch: pa.RecordBatch
    bad: list[BadRow]
    fraction: float
    """Share of the file read up to the end of the chunk, 0 to 1."""


def convert_chunk(chunk: Chunk, events: Events, columns: EventColumns, limits: TimeLimits) -> ConvertedRows:
    """Convert a chunk's columns to their declared types; a value that does not convert costs its row only."""
    at, failed_times = convert_time(chunk.columns.column(columns.time), columns.time_unit)
    arrays, failed = [at], [failed_times]
    for name, declared in columns.columns.items():
        array, failed_values = convert(chunk.columns.column(name), declared)
        arrays.append(array)
        failed.append(failed_values)
    batch = pa.RecordBatch.from_arrays(arrays, ["at", *columns.columns])
    reasons = _reasons(chunk, batch, failed, events, columns)
    strays = limits.strays(at.fill_null(0).to_numpy(zero_copy_only=False))
    strays = {row: why for row, why in strays.items() if row not in reasons}
    bad = [BadRow(int(chunk.lines[row]), why, chunk.original(row)) for row, why in reasons.items()]
    bad += [BadRow(int(chunk.lines[row]), why, chunk.original(row), "time_out_of_range") for row, why in strays.items()]
    all_bad = sorted([*chunk.malformed, *bad], key=lambda row: row.line)
    if not bad:
        return ConvertedRows(batch, all_bad, chunk.fraction)
    good = np.ones(batch.num_rows, dtype=bool)
    good[[*reasons, *strays]] = False
    return ConvertedRows(batch.filter(pa.array(good)), all_bad, chunk.fraction)


def check_first_chunk(path: Path, chunk: Chunk, columns: EventColumns) -> None:
    """Raise InputError if the first chunk shows that the whole file is wrong."""
    if not chunk.columns.num_rows and len(chunk.malformed) >= MIN_ROWS_TO_REFUSE_FILE:
        row = chunk.malformed[0]
        raise InputError(
            f"{path} has no readable row; line {row.line}: {row.why}. hint: compare its format with springtide.toml"
        )
    for name in [columns.time, *columns.columns]:
        raw = chunk.columns.column(name)
        filled = raw.is_valid().to_numpy(zero_copy_only=False)
        if filled.sum() < MIN_ROWS_TO_REFUSE_FILE:
            continue
        wanted = f"time_unit {columns.time_unit}" if name == columns.time else columns.columns[name]
        if _failed(raw, name, columns)[filled].all():
            example = _display(raw[int(np.flatnonzero(filled)[0])])
            text = f"has values like {example}, springtide.toml declares {wanted}"
            raise InputError(f"{path} column {name} {text}. hint: correct one of the two")


def _failed(raw: pa.Array, name: str, columns: EventColumns) -> npt.NDArray[np.bool_]:
    if name == columns.time:
        return convert_time(raw, columns.time_unit)[1]
    return convert(raw, columns.columns[name])[1]


def _reasons(
    chunk: Chunk, batch: pa.RecordBatch, failed: list[npt.NDArray[np.bool_]], events: Events, columns: EventColumns
) -> dict[int, str]:
    """By bad row the reason: the first column that does not convert, or an empty key or time."""
    reasons: dict[int, str] = {}
    names = [columns.time, *columns.columns]
    kinds = [f"a time in {columns.time_unit}", *columns.columns.values()]
    for name, kind, failed_values in zip(names, kinds, failed, strict=True):
        for row in np.flatnonzero(failed_values):
            reasons.setdefault(int(row), f"column {name} is {_display(chunk.columns.column(name)[row])}, wanted {kind}")
    for name in ("at", *events.shard_keys):
        column = batch.column(name)
        if column.null_count:
            for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)):
                reasons.setdefault(int(row), f"column {columns.time if name == 'at' else name} is empty")
    return reasons


def _display(value: pa.Scalar) -> str:
    plain = value.as_py()
    text = plain.decode("utf-8", "backslashreplace") if isinstance(plain, bytes) else str(plain)
    return repr(text if len(text) <= 40 else text[:40] + "…")
