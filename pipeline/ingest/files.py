"""Reads files of events; the suffix selects the format: csv, csv.gz, jsonl, jsonl.gz, parquet, avro.

A problem of the whole file raises InputError; a problem of a row makes it a BadRow.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.configuration.events import EventColumns
from pipeline.errors import InputError
from pipeline.ingest.chunk import Chunk
from pipeline.ingest.csv_file import read_csv
from pipeline.ingest.jsonl_file import read_jsonl
from pipeline.ingest.typed_file import read_avro, read_parquet

_READERS = {
    ".csv": read_csv,
    ".csv.gz": read_csv,
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".parquet": read_parquet,
    ".avro": read_avro,
}


def read_file(path: Path, columns: EventColumns) -> Iterator[Chunk]:
    """Yield the chunks of a file, in order. Raises InputError."""
    suffix = next((s for s in _READERS if path.name.lower().endswith(s)), None)
    if suffix is None:
        known = ", ".join(_READERS)
        raise InputError(f"{path} has no known file format, known are {known}. hint: convert or rename it")
    try:
        yield from _READERS[suffix](path, columns)
    except (pa.ArrowException, OSError, EOFError) as failure:
        hint = "hint: is it complete? fetch or write it again"
        raise InputError(f"{path} cannot be read as {suffix}: {failure}. {hint}") from failure
