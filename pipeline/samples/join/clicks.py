"""Clicks that wait for their impression or for its window to close: typed rows and Arrow's raw columns.

A click is an event of any feedback.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays.block import EventBlock
from pipeline.arrays.gather import RowSelection
from pipeline.arrays.keys import ids128
from pipeline.arrays.structured import concatenate_rows
from pipeline.arrays.types import Bools, Float32s, UInt64s
from pipeline.configuration.streams.events import EventColumns
from pipeline.configuration.streams.feedbacks import FeedbackLabel
from pipeline.logs.events.event_columns import arrow_schema

CLICK = np.dtype(
    [
        ("id", "u8", (2,)),
        ("at", "i8"),
        ("offset", "i8"),
        ("partition", "i4"),
        ("row", "i4"),
        ("effective", "i8"),  # the later of its time and its partition's watermark
        ("late", "?"),
        ("place", "u8"),  # of its impression, if there is one
        ("impression_at", "i8"),
    ],
    align=True,
)


@dataclass(frozen=True)
class Clicks:
    """n clicks in arrival order.

    Attributes:
        rows: [n] CLICK.
        columns: [n] raw columns.
    """

    rows: np.ndarray
    columns: pa.RecordBatch

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def empty(cls, events: EventColumns) -> "Clicks":
        """No clicks, with the columns that the configuration declares."""
        columns = pa.RecordBatch.from_pylist([], schema=arrow_schema(events.columns))
        return cls(np.zeros(0, CLICK), columns)

    @classmethod
    def of(cls, block: EventBlock, key: Sequence[str]) -> "Clicks":
        """The clicks of a block."""
        rows = np.zeros(len(block), CLICK)
        rows["id"] = ids128(block.columns, key)
        rows["at"], rows["offset"], rows["row"] = block.at_ms, block.offsets, block.rows
        rows["partition"] = block.partition
        rows["effective"] = np.maximum(block.at_ms, block.watermarks_ms)
        rows["late"] = block.at_ms < block.watermarks_ms
        return cls(rows, block.columns)

    @classmethod
    def concatenate(cls, parts: Sequence["Clicks"]) -> "Clicks":
        """One or more parts, in order."""
        filled = [p for p in parts if len(p)] or [parts[0]]
        if len(filled) == 1:
            return filled[0]
        return cls(concatenate_rows([p.rows for p in filled]), pa.concat_batches([p.columns for p in filled]))

    def take(self, index: npt.NDArray[np.integer]) -> "Clicks":
        """The clicks at `index`."""
        return Clicks(self.rows.take(index), RowSelection.of(self.columns, index).gather())

    def where(self, mask: Bools) -> "Clicks":
        """The clicks for which [n] `mask` is true, in order."""
        return self if mask.all() else self.take(np.flatnonzero(mask))

    def split_at(self, limit_ms: int) -> tuple["Clicks", "Clicks"]:
        """The clicks up to `limit_ms`, and the others; each partition is cut once, so that its order is preserved."""
        later = self.rows["at"] > limit_ms
        if not later.any():
            return self, self.take(np.zeros(0, np.int64))
        due = np.ones(len(self), np.bool_)
        for partition in np.unique(self.rows["partition"][later]).tolist():
            here = self.rows["partition"] == partition
            due &= ~here | (np.cumsum(later & here) == 0)
        return self.where(due), self.where(~due)

    def ids(self) -> UInt64s:
        """[n, 2] uint64."""
        return np.ascontiguousarray(self.rows["id"])

    def labels(self, labels: Sequence[FeedbackLabel]) -> Float32s:
        """[n, labels] float32: the label's column, where null is 0; 1 for a label without one."""
        out = np.ones((len(self), len(labels)), np.float32)
        for i, label in enumerate(labels):
            if label.column is not None:
                out[:, i] = pc.fill_null(self.columns.column(label.column).cast(pa.float32(), safe=False), 0.0)
        return out


def lowest_offsets(rows: np.ndarray) -> dict[int, int]:
    """By partition, the lowest source offset of [n] CLICK."""
    partitions = np.unique(rows["partition"]).tolist()
    return {partition: int(rows["offset"][rows["partition"] == partition].min()) for partition in partitions}
