"""Columns as bytes: one Arrow record batch as an IPC stream with lz4-compressed buffers, the body of every block.

Reading checks everything: a stream that is cut off, has invalid offsets or another number of rows raises DamagedError,
and so does one that needs too much memory, before it is decompressed (`arrow_size`).
"""

import struct
from collections.abc import Iterable

import pyarrow as pa

from pipeline.errors import DamagedError
from pipeline.formats.arrow_size import MAX_BYTES, decompressed_bytes, plain_bytes

# A thread for each buffer costs more than its few kilobytes.
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", emit_dictionary_deltas=False, use_threads=False)
_READ_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)


def pack(batch: pa.RecordBatch) -> bytes:
    """An IPC stream of `batch` only."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_OPTIONS) as writer:
        writer.write_batch(batch)
    packed = sink.getvalue().to_pybytes()
    assert isinstance(packed, bytes)
    return packed


def unpack(packed: bytes, rows: int) -> pa.RecordBatch:
    """The one batch of an IPC stream. Raises DamagedError if it is broken or does not have `rows` rows."""
    try:
        _check_size("claim", decompressed_bytes(packed))
        with pa.ipc.open_stream(pa.py_buffer(packed), options=_READ_OPTIONS) as stream:
            batches = list(stream)
        for batch in batches:
            batch.validate(full=True)
            _check_names(batch.schema)
            _check_size("have", sum(map(plain_bytes, batch.columns)))
    except (pa.ArrowException, OSError, ValueError, EOFError, struct.error) as failure:
        raise DamagedError(f"columns are not an arrow stream: {failure}") from failure
    found = sum(batch.num_rows for batch in batches)
    if len(batches) != 1 or found != rows:
        raise DamagedError(f"columns hold {found} rows in {len(batches)} batches, wanted {rows} in 1")
    return batches[0]


def _check_size(how: str, size: int) -> None:
    if size > MAX_BYTES:
        raise DamagedError(f"columns {how} {size} bytes, allowed are {MAX_BYTES}. hint: write smaller blocks")


def _check_names(fields: Iterable[pa.Field]) -> None:
    """Decode all field names, which Arrow does not check: a name that is not UTF-8 raises ValueError here."""
    for field in fields:
        assert isinstance(field.name, str)
        _check_names(field.type.field(i) for i in range(field.type.num_fields))
