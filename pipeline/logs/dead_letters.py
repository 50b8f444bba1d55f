"""The dead-letters topic's records: events set aside, each with reason, source position and original bytes.

Layout: frame, Avro `dead_letter_block`; its `columns` are an Arrow IPC stream of `DEAD_LETTER_SCHEMA`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.ground.block import DEAD_LETTER_SCHEMA, DeadLetters
from pipeline.ground.errors import DamagedError
from pipeline.ground.schemas import decode, encode, load_schema
from pipeline.logs.columns import pack, unpack

NO_SHARD = -1
"""Where no join set the event aside (ingest did)."""


def dead_letters(rows: Sequence[Mapping[str, Any]]) -> DeadLetters:
    """Dead letters from mappings with the columns of `DEAD_LETTER_SCHEMA`; a missing one is null."""
    columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in DEAD_LETTER_SCHEMA]
    return DeadLetters(pa.RecordBatch.from_arrays(columns, schema=DEAD_LETTER_SCHEMA))


def merge_dead_letters(parts: Iterable[DeadLetters]) -> DeadLetters:
    """All dead letters of `parts`, in order."""
    tables = [part.table for part in parts if part.table.num_rows]
    return DeadLetters(pa.concat_batches(tables)) if tables else dead_letters([])


def encode_dead_letters(letters: DeadLetters, shard: int = NO_SHARD) -> bytes:
    """One record of the dead-letters topic."""
    datum = {"shard": shard, "rows": letters.table.num_rows, "columns": pack(letters.table)}
    return encode(load_schema("dead_letter_block"), datum)


def decode_dead_letters(value: bytes) -> DeadLetters:
    """A record of the dead-letters topic. Raises DamagedError."""
    datum = decode(load_schema("dead_letter_block"), value)
    table = unpack(datum["columns"], datum["rows"])
    if not table.schema.equals(DEAD_LETTER_SCHEMA):
        raise DamagedError(
            f"dead letters have columns {', '.join(table.schema.names)}, wanted {', '.join(DEAD_LETTER_SCHEMA.names)}"
        )
    return DeadLetters(table)
