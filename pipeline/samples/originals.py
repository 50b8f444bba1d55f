"""A dead letter's original bytes: of an event that is a record of its own, that record as the log has it."""

import pyarrow as pa

from pipeline.ground.block import DEAD_LETTER_SCHEMA, DeadLetters
from pipeline.ground.schemas import load_schema, unframe
from pipeline.logs.log import Log, ReadLimits


def with_originals(letters: DeadLetters, log: Log) -> DeadLetters:
    """The same letters; those of packed rows keep the row as JSON.

    A letter whose record is no longer there keeps its JSON as well.
    """
    table = letters.table
    originals = table.column("original").to_pylist()
    places = zip(*(table.column(n).to_pylist() for n in ("topic", "partition", "offset", "row")), strict=True)
    for i, (topic, partition, offset, row) in enumerate(places):
        # Only a packed record has a second row; every first row has to be looked at.
        value = None if row else _record(log, topic, partition, offset)
        if value is not None and unframe(value)[0] != load_schema("event_block").id:
            originals[i] = value
    column = DEAD_LETTER_SCHEMA.get_field_index("original")
    return DeadLetters(table.set_column(column, DEAD_LETTER_SCHEMA.field(column), pa.array(originals, pa.binary())))


def _record(log: Log, topic: str, partition: int, offset: int) -> bytes | None:
    if offset < log.begin_offset(topic, partition):
        return None
    records = log.read(topic, partition, offset, ReadLimits(records=1))
    return records[0].value if records and records[0].offset == offset else None
