"""The records of the dead-letters topic: one event each, with its original bytes as value and the reason as headers.

Headers, all text: `__connect.errors.topic`, `.partition`, `.offset` and `.exception.message`, as Kafka Connect names
them; `springtide.reason`; `springtide.row` inside the record; `springtide.event_at` in ms, if the event had a time;
and `springtide.shard`, if a join set it aside.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.arrays.block import DEAD_LETTER_SCHEMA, DeadLetters
from pipeline.errors import DamagedError
from pipeline.logs.interface.log import Headers, Record

REASONS = (
    "undecodable", "time_out_of_range", "impression_too_late", "click_too_late", "orphan_click",
    "click_before_impression", "duplicate_impression", "duplicate_click", "weight_out_of_range", "number_out_of_range",
    "label_out_of_range", "weights_invalid", "candidate_too_late", "duplicate_candidate", "score_out_of_range",
)  # fmt: skip
"""Why an event may be a dead letter: its decoding, its time, or the join."""
SHARD = "springtide.shard"
_HEADERS = {
    "reason": "springtide.reason",
    "topic": "__connect.errors.topic",
    "partition": "__connect.errors.partition",
    "offset": "__connect.errors.offset",
    "row": "springtide.row",
    "event_at": "springtide.event_at",
    "detail": "__connect.errors.exception.message",
}
"""By column of `DEAD_LETTER_SCHEMA`; the remaining column, `original`, is the record's value."""
_OPTIONAL = "event_at"


def dead_letters(rows: Sequence[Mapping[str, Any]]) -> DeadLetters:
    """Dead letters from mappings with the columns of `DEAD_LETTER_SCHEMA`; a missing one is null."""
    columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in DEAD_LETTER_SCHEMA]
    return DeadLetters(pa.RecordBatch.from_arrays(columns, schema=DEAD_LETTER_SCHEMA))


def dead_letter_records(letters: DeadLetters, extra: Headers) -> tuple[list[bytes], list[Headers]]:
    """Values and headers of the records, one for each letter; every record also has the headers `extra`."""
    rows = letters.table.to_pylist()
    headers: list[Headers] = [
        {name: str(row[column]) for column, name in _HEADERS.items() if row[column] is not None} | dict(extra)
        for row in rows
    ]
    return [row["original"] for row in rows], headers


def readable_letters(records: Iterable[Record]) -> list[Record]:
    """The records that are dead letters: any process may have written others to the topic, or damaged one."""
    return [record for record in records if _is_letter(record)]


def _is_letter(record: Record) -> bool:
    try:
        _row(record)
    except DamagedError:
        return False
    return True


def read_dead_letters(records: Iterable[Record]) -> DeadLetters:
    """The letters of the records, in order. Raises DamagedError for a record that is not a dead letter."""
    return dead_letters([_row(record) for record in records])


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"original": record.value}
    for column, name in _HEADERS.items():
        text = record.headers.get(name)
        if text is None and column != _OPTIONAL:
            raise DamagedError(
                f"record {record.offset} of the dead letters has no header {name}. "
                "hint: check which other process writes this topic"
            )
        kind = DEAD_LETTER_SCHEMA.field(column).type
        row[column] = None if text is None else _value(name, text, kind, record.offset)
    return row


def _value(name: str, text: str, kind: pa.DataType, offset: int) -> Any:
    try:
        return pa.scalar(text if pa.types.is_string(kind) else int(text), kind).as_py()
    except (ValueError, OverflowError, pa.ArrowInvalid):  # a lone surrogate is a ValueError too
        raise DamagedError(f"record {offset} of the dead letters: header {name} is {text!r}, wanted {kind}") from None
