"""Weights in the row formats of other serving systems, as Parquet.

springtide's replicas hold the integers of deltas, whose precision differs by row; these formats have one for all rows.
`schemas/rows.md` documents the columns and holds a reader.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.arrays.types import Float32s, UInt64s
from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import encode_codebook, encode_rows

FLOATS = {"fp32": pa.float32(), "fp16": pa.float16()}
GRIDS = {"int8": "int8", "int4": "int4", "int2": "int2", "codebook8": "int8", "codebook4": "int4", "codebook2": "int2"}
"""Formats of rows with a scale and an offset, and their codecs."""
FORMATS = (*FLOATS, *GRIDS)
_GRID_BYTES = 4

RowPiece = tuple[int, UInt64s, Float32s]
"""A shard, keys [n] ascending, and weights [n, dim] of some of its rows."""


def row_schema(format: str, dim: int) -> pa.Schema:
    """The columns of a format. Raises InputError for an unknown one.

    >>> row_schema("codebook4", 16).names
    ['shard', 'key', 'grid', 'codes']
    """
    if format not in FORMATS:
        raise InputError(f"format {format} does not exist. known: {', '.join(FORMATS)}")
    columns = [("shard", pa.int32()), ("key", pa.uint64())]
    if format in FLOATS:
        columns.append(("weights", pa.list_(FLOATS[format], dim)))
    else:
        columns += [("grid", pa.binary(_GRID_BYTES)), ("codes", pa.binary((dim * int(format[-1]) + 7) // 8))]
    return pa.schema(columns, {"springtide.format": format, "springtide.dim": str(dim)})


def write_rows(path: Path, pieces: Iterable[RowPiece], format: str, dim: int) -> int:
    """Write a Parquet file with a row group for each piece; returns the number of rows.

    Memory is that of one piece. Rows of a codebook share the scales and offsets of their piece.

    Raises:
        InputError: an unknown format, or a weight that is NaN or infinite.
    """
    schema, rows = row_schema(format, dim), 0
    dictionary = ["shard", *(["grid"] if format.startswith("codebook") else [])]
    options = {"use_dictionary": dictionary, "column_encoding": {"key": "DELTA_BINARY_PACKED"}, "compression": "zstd"}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for shard, keys, weights in pieces:
            batch = pa.record_batch(
                [pa.array(np.full(len(keys), shard, np.int32)), pa.array(keys), *_values(weights, format)], schema
            )
            writer.write_table(pa.Table.from_batches([batch]), row_group_size=len(keys))
            rows += len(keys)
    return rows


def _values(weights: Float32s, format: str) -> Iterator[pa.Array]:
    """The columns of rows [n, dim] beside their keys."""
    rows = np.ascontiguousarray(weights)
    if format in FLOATS:
        codes = encode_rows(rows, format).view(FLOATS[format].to_pandas_dtype())
        yield pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), rows.shape[1])
        return
    encode = encode_codebook if format.startswith("codebook") else encode_rows
    payloads = encode(rows, GRIDS[format])
    for part in (payloads[:, :_GRID_BYTES], payloads[:, _GRID_BYTES:]):
        buffer = pa.py_buffer(np.ascontiguousarray(part))
        yield pa.FixedSizeBinaryArray.from_buffers(pa.binary(part.shape[1]), len(part), [None, buffer])
