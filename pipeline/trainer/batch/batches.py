"""Cuts a samples partition into batches whose boundaries depend only on the log and the batch size.

A batch is the next `batch_size` samples in log order, or fewer if a record carries the flush flag. A sample position is
an offset and a row, so reading can resume at any boundary and gives the same batches. Quarantined samples are dropped
before batches are cut.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.arrays.types import Bools, Int64s
from pipeline.logs.events.sample_block import decode_sample_record, sample_times
from pipeline.logs.interface.log import Log, ReadLimits, Record

NO_END = 2**63 - 1
"""After every offset."""
_READ_RECORDS = 64

Mask = Callable[[pa.RecordBatch, Int64s, int], Bools]
"""(samples [n] of one record, their times [n] ms, its offset) → [n], true for samples that training must not read."""


@dataclass(frozen=True)
class Excluded:
    """The samples of a partition that training must not read.

    Attributes:
        quarantined: by their time, their record's offset, or their columns.
        skipped: by offset: such a record is not even decoded, it may be foreign.
    """

    quarantined: Mask
    skipped: Callable[[int], bool] = lambda offset: False


class SamplePosition(NamedTuple):
    """The next sample to read: a row of the record at an offset, or of the first record after it."""

    offset: int
    row: int


@dataclass(frozen=True)
class Batch:
    """Samples to learn from in one step; n ≤ batch_size rows."""

    samples: pa.RecordBatch
    at_ms: Int64s
    """[n] each sample's time: the later of its impression and its click."""
    end: SamplePosition
    """Where the next batch begins; before the last batch of a window of shuffled samples, where the window begins."""
    window_row: int = 0
    """How many samples of its window are in batches before it."""
    closes_window: bool = True
    """Whether its window ends with it: without shuffling, each batch is a window."""

    def __len__(self) -> int:
        return len(self.at_ms)


@dataclass(frozen=True)
class _RecordRows:
    """Rows of one record that are in no batch yet; `rows` are their indices in the record."""

    samples: pa.RecordBatch
    rows: Int64s
    offset: int
    record_rows: int

    def split(self, count: int) -> tuple["_RecordRows", "_RecordRows"]:
        head = _RecordRows(self.samples.slice(0, count), self.rows[:count], self.offset, self.record_rows)
        return head, _RecordRows(self.samples.slice(count), self.rows[count:], self.offset, self.record_rows)

    @property
    def end(self) -> SamplePosition:
        following = int(self.rows[-1]) + 1
        if following == self.record_rows:
            return SamplePosition(self.offset + 1, 0)
        return SamplePosition(self.offset, following)


class BatchReader:
    """Reads one samples partition from `start` on. Not thread-safe."""

    def __init__(
        self,
        log: Log,
        topic: str,
        partition: int,
        start: SamplePosition,
        batch_size: int,
        excluded: Excluded,
    ) -> None:
        """Begin at `start`, without the samples that are `excluded`."""
        self._log, self._topic, self._partition = log, topic, partition
        self._batch_size, self._excluded = batch_size, excluded
        self._offset, self._skip_rows = start
        self._records: deque[Record] = deque()
        self._pending: deque[_RecordRows] = deque()
        self._pending_rows = 0
        self._ready: deque[Batch] = deque()

    def next(self, stop_offset: int) -> Batch | None:
        """The next batch from records below `stop_offset`; None if there is no complete or flushed one yet.

        Raises RecordError for a record that is foreign or damaged.
        """
        while not self._ready and self._offset < stop_offset:
            self._fetch()
            if not self._records or self._records[0].offset >= stop_offset:
                break
            self._append(self._records.popleft())
        return self._ready.popleft() if self._ready else None

    def wait(self, wait_ms: int) -> int:
        """An offset below which `next` has records to read, after waiting for records for at most `wait_ms`.

        It is the current offset if none arrive, and `NO_END` if there may be more records than one read returns.
        """
        self._fetch(wait_ms)
        if not self._records:
            return self._offset
        return NO_END if len(self._records) == _READ_RECORDS else self._records[-1].offset + 1

    def _fetch(self, wait_ms: int = 0) -> None:
        # Read many records, decode one at a time: a batch does not wait until all of them are decoded.
        if not self._records:
            limits = ReadLimits(records=_READ_RECORDS, wait_ms=wait_ms)
            self._records.extend(self._log.read(self._topic, self._partition, self._offset, limits))

    @property
    def passed(self) -> SamplePosition | None:
        """The position behind everything read, if all of it is in batches returned or in quarantine; else None."""
        waiting = self._pending_rows or self._ready or self._skip_rows
        return None if waiting else SamplePosition(self._offset, 0)

    def _append(self, record: Record) -> None:
        if self._excluded.skipped(record.offset):
            self._offset, self._skip_rows = record.offset + 1, 0
            return
        block = decode_sample_record(record, self._topic, self._partition)
        skipped = self._skip_rows if record.offset == self._offset else 0
        self._offset, self._skip_rows = record.offset + 1, 0
        at_ms = sample_times(block.batch)
        rows = np.flatnonzero(~self._excluded.quarantined(block.batch, at_ms, record.offset)).astype(np.int64)
        rows = rows[rows >= skipped]
        if len(rows):
            samples = block.batch if len(rows) == block.batch.num_rows else block.batch.take(pa.array(rows))
            self._pending.append(_RecordRows(samples, rows, record.offset, block.batch.num_rows))
            self._pending_rows += len(rows)
        while self._pending_rows >= self._batch_size:
            self._ready.append(self._cut(self._batch_size))
        if block.flush and self._pending_rows:
            self._ready.append(self._cut(self._pending_rows))

    def _cut(self, count: int) -> Batch:
        self._pending_rows -= count
        pieces: list[_RecordRows] = []
        while count:
            piece = self._pending.popleft()
            if len(piece.rows) > count:
                piece, rest = piece.split(count)
                self._pending.appendleft(rest)
            pieces.append(piece)
            count -= len(piece.rows)
        samples = pieces[0].samples if len(pieces) == 1 else pa.concat_batches([piece.samples for piece in pieces])
        return Batch(samples, sample_times(samples), pieces[-1].end)
