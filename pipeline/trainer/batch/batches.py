"""Cuts a samples partition into batches whose boundaries are in the log.

A batch is the next `batch_size` samples in log order, or fewer where a record carries the flush mark. A position is an
offset and a row, so reading may start again at any boundary and gives the same batches. Quarantined samples are left
out before batches are cut.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays.block import Int64s
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.log import Log, ReadLimits, Record

NO_END = 2**63 - 1
"""Behind every offset."""
_READ_RECORDS = 64

Mask = Callable[[Int64s, int], npt.NDArray[np.bool_]]
"""(sample times [n] ms, offset of their record) → [n], true where training must not read."""


class SamplePosition(NamedTuple):
    """The next sample to read: a row of the record at an offset, or of the first one behind it."""

    offset: int
    row: int


@dataclass(frozen=True)
class Batch:
    """Samples to learn from in one step; n ≤ batch_size rows."""

    samples: pa.RecordBatch
    at_ms: Int64s
    """[n] each sample's time: the later of its impression and its click."""
    end: SamplePosition
    """Where the next batch begins."""

    def __len__(self) -> int:
        return len(self.at_ms)


@dataclass(frozen=True)
class _Piece:
    """Rows of one record that are still to be handed out; `rows` are their indices in the record."""

    samples: pa.RecordBatch
    rows: npt.NDArray[np.int64]
    offset: int
    record_rows: int

    def split(self, count: int) -> tuple["_Piece", "_Piece"]:
        head = _Piece(self.samples.slice(0, count), self.rows[:count], self.offset, self.record_rows)
        return head, _Piece(self.samples.slice(count), self.rows[count:], self.offset, self.record_rows)

    @property
    def end(self) -> SamplePosition:
        following = int(self.rows[-1]) + 1
        return (
            SamplePosition(self.offset + 1, 0)
            if following == self.record_rows
            else SamplePosition(self.offset, following)
        )


class BatchReader:
    """Reads one samples partition from `start` on. Not thread-safe: one thread reads."""

    def __init__(
        self, log: Log, topic: str, partition: int, start: SamplePosition, batch_size: int, quarantined: Mask
    ) -> None:
        self._log, self._topic, self._partition = log, topic, partition
        self._batch_size, self._quarantined = batch_size, quarantined
        self._offset, self._skip_rows = start
        self._records: deque[Record] = deque()
        self._pieces: deque[_Piece] = deque()
        self._waiting_rows = 0
        self._ready: deque[Batch] = deque()

    def next(self, stop_offset: int) -> Batch | None:
        """The next batch from records below `stop_offset`; None where no whole or flushed one is there yet."""
        while not self._ready and self._offset < stop_offset:
            self._read_on()
            if not self._records or self._records[0].offset >= stop_offset:
                break
            self._take_in(self._records.popleft())
        return self._ready.popleft() if self._ready else None

    def wait(self, wait_ms: int) -> int:
        """An offset up to which `next` finds records; they are waited for at most so long.

        It is the one read to where none come, and without an end where there may be more than were read at once.
        """
        self._read_on(wait_ms)
        if not self._records:
            return self._offset
        return NO_END if len(self._records) == _READ_RECORDS else self._records[-1].offset + 1

    def _read_on(self, wait_ms: int = 0) -> None:
        # Read many, decode one: whoever waits for a batch would wait for all of them.
        if not self._records:
            limits = ReadLimits(records=_READ_RECORDS, wait_ms=wait_ms)
            self._records.extend(self._log.read(self._topic, self._partition, self._offset, limits))

    def _take_in(self, record: Record) -> None:
        block = decode_sample_block(record.value)
        skipped = self._skip_rows if record.offset == self._offset else 0
        self._offset, self._skip_rows = record.offset + 1, 0
        at_ms = sample_times(block.batch)
        rows = np.flatnonzero(~self._quarantined(at_ms, record.offset)).astype(np.int64)
        rows = rows[rows >= skipped]
        if len(rows):
            whole = len(rows) == block.batch.num_rows
            kept = block.batch if whole else block.batch.take(pa.array(rows))
            self._pieces.append(_Piece(kept, rows, record.offset, block.batch.num_rows))
            self._waiting_rows += len(rows)
        while self._waiting_rows >= self._batch_size:
            self._ready.append(self._cut(self._batch_size))
        if block.flush and self._waiting_rows:
            self._ready.append(self._cut(self._waiting_rows))

    def _cut(self, count: int) -> Batch:
        self._waiting_rows -= count
        taken: list[_Piece] = []
        while count:
            piece = self._pieces.popleft()
            if len(piece.rows) > count:
                piece, rest = piece.split(count)
                self._pieces.appendleft(rest)
            taken.append(piece)
            count -= len(piece.rows)
        samples = taken[0].samples if len(taken) == 1 else pa.concat_batches([piece.samples for piece in taken])
        return Batch(samples, sample_times(samples), taken[-1].end)


def sample_times(samples: pa.RecordBatch) -> Int64s:
    """[n] ms: the later of impression and click of each sample."""
    impression_at = samples.column("impression_at").to_numpy(zero_copy_only=False)
    click_at = samples.column("click_at").fill_null(np.iinfo(np.int64).min).to_numpy(zero_copy_only=False)
    return np.asarray(np.maximum(impression_at, click_at), np.int64)
