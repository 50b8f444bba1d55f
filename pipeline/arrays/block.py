"""Blocks: the unit of flow. Thousands of events as typed columns, each row with its time and its source position.

A block crosses Beam as one `bytes` element. Columns are Arrow's; system columns are NumPy arrays of one length.
"""

import pickle
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

EventKind = Literal["impressions", "clicks"]

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
UInt64s = npt.NDArray[np.uint64]

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "strings": pa.list_(pa.string()),
    "ints": pa.list_(pa.int64()),
    "floats": pa.list_(pa.float64()),
}


@dataclass(frozen=True)
class DeadLetters:
    """Events set aside: `table` has the columns of `DEAD_LETTER_SCHEMA`, one row per source position."""

    table: pa.RecordBatch


DEAD_LETTER_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("row", pa.int32()),
        ("event_at", pa.int64()),  # ms; null where it could not be read
        ("detail", pa.string()),
        ("original", pa.binary()),  # the event's own bytes; of a packed row, that row as JSON
    ]
)


@dataclass(frozen=True)
class EventBlock:
    """Decoded events of one partition of one topic, in log order; n rows.

    Attributes:
        kind: which of the two inputs.
        partition: source partition.
        columns: [n] the user's columns, as the configuration types them.
        at_ms: [n] event times, ms.
        offsets: [n] source offsets of the rows.
        rows: [n] index inside the source record (0 for a record that holds one event).
        watermarks_ms: [n] the watermark at each row, the row included: max event time, a time ahead of its append
            as that append, minus disorder, ms.
        next_offset: where reading goes on after this block.
        watermark_ms: the partition's watermark after this block (heartbeats included), ms.
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
        """The rows at `index`, in that order; watermark and next offset stay the block's."""
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

    def to_bytes(self) -> bytes:
        """One element for Beam; read it back with `from_bytes` in the same release only."""
        return pickle.dumps(self, protocol=5)

    @staticmethod
    def from_bytes(element: bytes) -> "EventBlock":
        block = pickle.loads(element)
        assert isinstance(block, EventBlock)
        return block
