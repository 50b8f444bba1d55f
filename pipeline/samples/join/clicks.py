"""Clicks that wait for their impression or for its window to close: typed rows beside Arrow's raw columns."""

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
from pipeline.configuration.config import Config
from pipeline.samples.join.output import empty_columns

CLICK = np.dtype(
    [
        ("id", "u8", (2,)),
        ("at", "i8"),
        ("offset", "i8"),
        ("partition", "i4"),
        ("row", "i4"),
        ("effective", "i8"),  # the later of its time and its partition's watermark: when it was there at the earliest
        ("late", "?"),
        ("place", "u8"),  # of its impression, once found
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
    def none(cls, config: Config) -> "Clicks":
        """No clicks, with the columns that the configuration declares."""
        return cls(np.zeros(0, CLICK), empty_columns(config.events.clicks.columns))

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
    def joined(cls, parts: Sequence["Clicks"]) -> "Clicks":
        """All of one or more parts, in order."""
        filled = [p for p in parts if len(p)] or [parts[0]]
        if len(filled) == 1:
            return filled[0]
        return cls(concatenate_rows([p.rows for p in filled]), pa.concat_batches([p.columns for p in filled]))

    def take(self, index: npt.NDArray[np.integer]) -> "Clicks":
        """The clicks at `index`."""
        return Clicks(self.rows.take(index), RowSelection.of(self.columns, index).gather())

    def where(self, mask: npt.NDArray[np.bool_]) -> "Clicks":
        """The clicks that [n] `mask` names, in order."""
        return self if mask.all() else self.take(np.flatnonzero(mask))

    def ids(self) -> npt.NDArray[np.uint64]:
        """[n, 2] uint64."""
        return np.ascontiguousarray(self.rows["id"])

    def labels(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """[n, labels] float32: 1 for the click itself, then the named columns; null counts 0."""
        out = np.ones((len(self), len(names)), np.float32)
        for i, name in enumerate(names[1:], 1):
            out[:, i] = pc.fill_null(self.columns.column(name).cast(pa.float32(), safe=False), 0.0)
        return out
