"""Reads files of events; the suffix selects the format: csv, csv.gz, jsonl, jsonl.gz, parquet, avro.

A problem of the whole file raises InputError; a problem of a row makes it a BadRow.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.configuration.streams.events import EventColumns
from pipeline.errors import InputError
from pipeline.ingest.files.avro_file import read_avro
from pipeline.ingest.files.chunk import SIZES, Chunk, Sizes
from pipeline.ingest.files.csv_file import read_csv
from pipeline.ingest.files.jsonl_file import read_jsonl
from pipeline.ingest.files.parquet_file import read_parquet

_SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet", ".avro")


def read_file(path: Path, columns: EventColumns, keys: Sequence[str], sizes: Sizes = SIZES) -> Iterator[Chunk]:
    """Yield the chunks of a file, in order; `keys` are the columns that no row may lack. Raises InputError."""
    suffix = next((s for s in _SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        known = ", ".join(_SUFFIXES)
        raise InputError(f"{path} has no known file format, known are {known}. hint: convert or rename it")
    try:
        yield from _read(suffix, path, columns, keys, sizes)
    except (pa.ArrowException, OSError, EOFError, zlib.error) as failure:
        hint = "hint: is it complete? fetch or write it again"
        raise InputError(f"{path} cannot be read as {suffix}: {failure}. {hint}") from failure


def _read(suffix: str, path: Path, columns: EventColumns, keys: Sequence[str], sizes: Sizes) -> Iterator[Chunk]:
    if suffix.startswith(".csv"):
        return read_csv(path, columns, sizes)
    if suffix.startswith(".jsonl"):
        return read_jsonl(path, columns, keys, sizes)
    return read_parquet(path, columns, sizes) if suffix == ".parquet" else read_avro(path, columns, sizes)
