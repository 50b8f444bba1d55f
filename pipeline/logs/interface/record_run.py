"""A run: consecutive records of one partition as columns, which costs less than one object per record.

A log with the method `read_run` (Kafka, whose record batches are decoded natively) reads runs directly. A run contains
the same records as the list that `read` returns, without their keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.logs.interface.log import Log, ReadLimits, Record

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RecordRun(Sequence[Record]):
    """A sequence of n consecutive records, each created on access; their offsets may have gaps.

    Attributes:
        offsets: [n] int64, ascending.
        appended_at_ms: [n] int64.
        values: [n] binary.
        headers: [n] mappings; None if no record has any.
        next_offset: the offset to read next; above the last offset + 1 if a gap follows.
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
        """The columns of records that were read from `start` on.

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

    def __getitem__(self, row: Any) -> Any:
        headers = self.headers[row] if self.headers is not None else {}
        return Record(int(self.offsets[row]), int(self.appended_at_ms[row]), self.values[row].as_py(), headers)

    @property
    def value_bytes(self) -> int:
        """Size of all values."""
        bounds = self._value_bounds()
        return int(bounds[-1] - bounds[0])

    def before(self, stop: int) -> "RecordRun":
        """The records below offset `stop`; the next offset is at most `stop`.

        >>> run = RecordRun.of([Record(4, 10, b"a"), Record(6, 10, b"b")], 3)
        >>> [(len(run.before(stop)), run.before(stop).next_offset) for stop in (4, 5, 6, 9)]
        [(0, 4), (1, 5), (1, 6), (2, 7)]
        """
        part = self.part(0, int(np.searchsorted(self.offsets, stop)))
        return replace(part, next_offset=min(part.next_offset, stop))

    def cut(self, limits: ReadLimits) -> tuple["RecordRun", "RecordRun"]:
        """The records that one read with these limits returns, at least one, and the rest."""
        bounds = self._value_bounds()
        fitting = int(np.searchsorted(bounds[1:] - bounds[0], limits.max_bytes, side="right")) if len(self) else 0
        at = min(max(fitting, 1), limits.records, len(self))
        return self.part(0, at), self.part(at, len(self))

    def part(self, begin: int, end: int) -> "RecordRun":
        """Rows `begin` to `end`; the next offset is that of row `end`."""
        return RecordRun(
            self.offsets[begin:end],
            self.appended_at_ms[begin:end],
            self.values[begin:end],
            self.headers[begin:end] if self.headers is not None else None,
            self.next_offset if end == len(self) else int(self.offsets[end]),
        )

    def _value_bounds(self) -> npt.NDArray[np.int32]:
        """[n + 1] int32: value i is bytes i to i + 1 of the values buffer."""
        buffer = self.values.buffers()[1] or bytes(4)
        return np.frombuffer(buffer, np.int32)[self.values.offset :][: len(self) + 1]


@runtime_checkable
class SupportsReadRun(Protocol):
    """A log that reads runs without creating an object for every record."""

    def read_run(self, topic: str, partition: int, start: int, limits: ReadLimits) -> RecordRun:
        """As `Log.read`; `next_offset` may lie beyond aborted records and commit markers."""


def read_run(log: Log, topic: str, partition: int, start: int, limits: ReadLimits) -> RecordRun:
    """A run from any log, read natively if the log supports it."""
    if isinstance(log, SupportsReadRun):
        return log.read_run(topic, partition, start, limits)
    return RecordRun.of(log.read(topic, partition, start, limits), start)
