"""Event blocks, the unit of flow: thousands of events as typed columns, each row with its time and source position.

User columns are Arrow arrays; system columns are NumPy arrays.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

EventKind = str
"""`impressions`, `clicks`, or the name of a further feedback."""

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
UInt64s = npt.NDArray[np.uint64]

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "uint": pa.uint64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "strings": pa.list_(pa.string()),
    "ints": pa.list_(pa.int64()),
    "uints": pa.list_(pa.uint64()),
    "floats": pa.list_(pa.float64()),
}


@dataclass(frozen=True)
class DeadLetters:
    """Dead letters: a table with the columns of `DEAD_LETTER_SCHEMA`, one row per source position."""

    table: pa.RecordBatch


DEAD_LETTER_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("row", pa.int32()),
        ("event_at", pa.int64()),  # ms; null if it could not be read
        ("detail", pa.string()),
        ("original", pa.binary()),  # the original bytes of the event; for a packed row, that row as JSON
    ]
)


@dataclass(frozen=True)
class EventBlock:
    """Decoded events of one partition of one topic, in log order; n rows.

    Attributes:
        kind: impressions, or that of a feedback.
        partition: source partition.
        columns: [n] the user's columns, with the types of the configuration.
        at_ms: [n] event times, ms.
        offsets: [n] source offsets of the rows.
        rows: [n] index in the source record (0 if the record holds one event).
        watermarks_ms: [n] the partition's watermark at each row, including the row, ms: max event time minus disorder.
            An event time after its append time counts as the append time.
        next_offset: offset at which reading continues after this block.
        watermark_ms: the partition's watermark after this block, including heartbeats, ms.
    """

    kind: EventKind
    partition: int
    columns: pa.RecordBatch
    at_ms: Int64s
    offsets: Int64s
    rows: Int32s
    watermarks_ms: Int64s
    next_offset: int
    watermark_ms: int

    def __len__(self) -> int:
        return len(self.at_ms)

    def take(self, index: npt.NDArray[np.int64]) -> "EventBlock":
        """The rows at `index`, in that order, with the watermark and next offset of the block."""
        return EventBlock(
            self.kind,
            self.partition,
            self.columns.take(pa.array(index)),
            self.at_ms[index],
            self.offsets[index],
            self.rows[index],
            self.watermarks_ms[index],
            self.next_offset,
            self.watermark_ms,
        )
