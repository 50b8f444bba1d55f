"""A run of records of one partition as columns: what `Log.read` gives as objects, for who wants thousands at once.

A log that can read runs has `read_run`: Kafka, whose record batches are decoded natively. A run holds what the records
that `read` gives do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.logs.log import Log, ReadLimits, Record

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RecordRun:
    """Consecutive records; gaps between their offsets are normal.

    Attributes:
        offsets: [n] int64, ascending.
        appended_at_ms: [n] int64.
        values: [n] binary.
        headers: [n] mappings; None where no record has any.
        next_offset: where to read on; beyond the last record where a gap follows it.
    """

    offsets: Int64s
    appended_at_ms: Int64s
    values: pa.BinaryArray
    headers: Sequence[Mapping[str, str]] | None
    next_offset: int

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def of(cls, records: Sequence[Record], start: int) -> "RecordRun":
        """Lay out records that were read from `start` on.

        >>> run = RecordRun.of([Record(4, 10, b"a"), Record(6, 10, b"b")], 3)
        >>> run.offsets.tolist(), run.values.to_pylist(), run.next_offset
        ([4, 6], [b'a', b'b'], 7)
        """
        return cls(
            np.array([r.offset for r in records], np.int64),
            np.array([r.appended_at_ms for r in records], np.int64),
            pa.array([r.value for r in records], pa.binary()),
            [r.headers for r in records] if any(r.headers for r in records) else None,
            records[-1].offset + 1 if records else start,
        )

    def record(self, row: int) -> Record:
        """One record as an object."""
        headers = self.headers[row] if self.headers is not None else {}
        return Record(int(self.offsets[row]), int(self.appended_at_ms[row]), self.values[row].as_py(), headers)

    def records(self) -> list[Record]:
        """All records as objects."""
        return [self.record(row) for row in range(len(self))]

    @property
    def value_bytes(self) -> int:
        """Bytes of all values."""
        ends = self._value_ends()
        return int(ends[-1] - ends[0])

    def before(self, stop: int) -> "RecordRun":
        """The records below offset `stop`; what is read next is no further than it.

        >>> run = RecordRun.of([Record(4, 10, b"a"), Record(6, 10, b"b")], 3)
        >>> [(len(run.before(stop)), run.before(stop).next_offset) for stop in (4, 5, 6, 9)]
        [(0, 4), (1, 5), (1, 6), (2, 7)]
        """
        kept = self.part(0, int(np.searchsorted(self.offsets, stop)))
        return replace(kept, next_offset=min(kept.next_offset, stop))

    def cut(self, limits: ReadLimits) -> tuple["RecordRun", "RecordRun"]:
        """What one read may return of it, at least one record, and the rest."""
        ends = self._value_ends()
        fitting = int(np.searchsorted(ends[1:] - ends[0], limits.max_bytes, side="right")) if len(self) else 0
        at = min(max(fitting, 1), limits.records, len(self))
        return self.part(0, at), self.part(at, len(self))

    def _value_ends(self) -> npt.NDArray[np.int32]:
        held = self.values.buffers()[1] or bytes(4)
        return np.frombuffer(held, np.int32)[self.values.offset :][: len(self) + 1]

    def part(self, begin: int, end: int) -> "RecordRun":
        """Rows `begin` to `end`; what is read next lies behind them."""
        return RecordRun(
            self.offsets[begin:end],
            self.appended_at_ms[begin:end],
            self.values[begin:end],
            self.headers[begin:end] if self.headers is not None else None,
            self.next_offset if end == len(self) else int(self.offsets[end]),
        )


@runtime_checkable
class SupportsReadRun(Protocol):
    """A log that reads runs without making an object of every record."""

    def read_run(self, topic: str, partition: int, start: int, limits: ReadLimits) -> RecordRun:
        """As `Log.read`; `next_offset` may lie beyond records that readers do not see."""


def read_run(log: Log, topic: str, partition: int, start: int, limits: ReadLimits) -> RecordRun:
    """A run from any log, natively where it can: as its `read`."""
    if isinstance(log, SupportsReadRun):
        return log.read_run(topic, partition, start, limits)
    return RecordRun.of(log.read(topic, partition, start, limits), start)
