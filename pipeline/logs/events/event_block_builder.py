"""Builds one EventBlock from the decoded records of a partition: checks times, computes watermarks, sets rows aside.

All arithmetic is over columns; only rows set aside are processed one by one. The watermarks depend on the partition
alone (the order of its records, event times and heartbeats), never on the boundaries of the runs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays.block import DeadLetters, EventBlock, EventKind, Int64s
from pipeline.errors import DamagedError
from pipeline.logs.events.dead_letters import dead_letters
from pipeline.logs.events.event_columns import AT
from pipeline.logs.interface.log import Record
from pipeline.logs.interface.record_run import RecordRun
from pipeline.process.instant import format_instant

NO_WATERMARK = -(2**62)
"""Watermark of a partition without events yet: earlier than any time, and far from overflow."""

_NULL_TIME = NO_WATERMARK
_FURTHEST_MS = 2**61


@dataclass(frozen=True)
class EventRules:
    """The rules for events of a kind: its columns, the key columns, which must not be null, and the limits of times."""

    kind: EventKind
    columns: pa.Schema
    keys: tuple[str, ...]
    skew_ms: int
    disorder_ms: int


@dataclass(frozen=True)
class DecodedRun:
    """The events of a run of records.

    Attributes:
        block: the events, in log order.
        dead: the events set aside, one per source position, in log order.
        max_event_time_ms: the partition's max event time, ms (an event counts up to its append, a heartbeat as its
            time + disorder); None if it has neither yet. The next run of this partition needs it.
    """

    block: EventBlock
    dead: DeadLetters
    max_event_time_ms: int | None


@dataclass(frozen=True)
class _Part:
    """Consecutive rows: one packed record, some single events, or one heartbeat.

    Attributes:
        records: one record for all rows, or one for each row.
        offsets: [records] int64.
        appended_at_ms: [records] int64.
        times: [n] int64 ms; null if an event has none.
        columns: [n] configured columns; None for a heartbeat.
        packed: [n] the columns as they were packed; None if each row is a record.
    """

    records: Sequence[Record]
    offsets: Int64s
    appended_at_ms: Int64s
    times: pa.Array
    columns: pa.RecordBatch | None
    packed: pa.RecordBatch | None

    @classmethod
    def of(
        cls, records: list[Record], times: pa.Array, columns: pa.RecordBatch | None, packed: pa.RecordBatch | None
    ) -> "_Part":
        offsets = np.array([r.offset for r in records], np.int64)
        return cls(records, offsets, np.array([r.appended_at_ms for r in records], np.int64), times, columns, packed)

    def record_of(self, row: int) -> Record:
        return self.records[0 if self.packed is not None else row]

    def original_of(self, row: int) -> bytes:
        return self.records[row].value if self.packed is None else row_as_json(self.packed, row)


class EventBlockBuilder:
    """Collects the records of one run in log order, then builds the block. Not thread-safe.

    Attributes:
        unreadable_schemas: schema ids that cannot be decoded in this run, with the error.
    """

    def __init__(self, rules: EventRules, topic: str, partition: int) -> None:
        self.unreadable_schemas: dict[int, DamagedError] = {}
        self._rules, self._topic, self._partition = rules, topic, partition
        self._parts: list[_Part] = []
        self._singles: list[tuple[Record, Mapping[str, Any]]] = []
        self._dead: list[dict[str, Any]] = []

    def add_block(self, record: Record, times: pa.Array, columns: pa.RecordBatch, packed: pa.RecordBatch) -> None:
        """Add a record of many rows."""
        self._flush_singles()
        self._parts.append(_Part.of([record], times, columns, packed))

    def add_events(self, run: RecordRun, times: Int64s, columns: pa.RecordBatch) -> None:
        """Add the [n] records of a run, one event each."""
        self._flush_singles()
        self._parts.append(_Part(run, run.offsets, run.appended_at_ms, pa.array(times), columns, None))

    def add_event(self, record: Record, event: Mapping[str, Any]) -> None:
        """Add a record of one event, with its time under `at`."""
        self._singles.append((record, event))

    def add_heartbeat(self, record: Record, at_ms: int) -> None:
        """Add a record that raises the max event time and has no event."""
        self._flush_singles()
        self._parts.append(_Part.of([record], _times([at_ms]), None, None))

    def set_aside(self, record: Record, detail: str, event_at: int | None = None) -> None:
        """Make a dead letter of a record that cannot be decoded."""
        self._letter("undecodable", record, 0, event_at, detail, record.value)

    def build(self, max_event_time_ms: int | None, next_offset: int) -> DecodedRun:
        """The events of the run, which ends before `next_offset`; the max event time is that of the previous run."""
        self._flush_singles()
        rules = self._rules
        times, appended, offsets, rows, events = self._flatten()
        nulls = self._null_keys(events)
        timely = (times >= 0) & (times <= np.minimum(appended, _FURTHEST_MS - 1 - rules.skew_ms) + rules.skew_ms)
        valid = timely & (nulls < 0)
        # After a heartbeat no older event follows, after an event none older than its time - disorder. An event time
        # ahead of the append counts as the append: a fast producer clock must not make the events of others late.
        reach = np.where(events, np.minimum(times, appended), times + rules.disorder_ms)
        start = NO_WATERMARK if max_event_time_ms is None else max_event_time_ms
        maxima = np.maximum(np.maximum.accumulate(np.where(valid, reach, NO_WATERMARK)), start) if len(times) else times
        last_max = int(maxima[-1]) if len(maxima) else start
        self._set_rows_aside(np.flatnonzero(~valid), times, timely, nulls)
        accepted = valid & events
        block = EventBlock(
            rules.kind,
            self._partition,
            self._columns_of(accepted[events]),
            times[accepted],
            offsets[accepted],
            rows[accepted],
            maxima[accepted] - rules.disorder_ms,
            next_offset,
            NO_WATERMARK if last_max == NO_WATERMARK else last_max - rules.disorder_ms,
        )
        letters = dead_letters(sorted(self._dead, key=lambda letter: (letter["offset"], letter["row"])))
        return DecodedRun(block, letters, None if last_max == NO_WATERMARK else last_max)

    def _flatten(self) -> tuple[Int64s, Int64s, Int64s, npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Per row of all parts: time, append time, offset, row inside its record, whether it is an event."""
        sizes = np.array([len(p.times) for p in self._parts], dtype=np.int64)
        per_record = _joined(
            [np.full(len(p.records), 1 if p.packed is None else len(p.times), np.int64) for p in self._parts]
        )
        offsets = np.repeat(_joined([p.offsets for p in self._parts]), per_record)
        appended = np.repeat(_joined([p.appended_at_ms for p in self._parts]), per_record)
        firsts = np.repeat(np.cumsum(per_record) - per_record, per_record)
        rows = (np.arange(len(firsts), dtype=np.int64) - firsts).astype(np.int32)
        events = np.repeat(np.array([p.columns is not None for p in self._parts], np.bool_), sizes)
        flat = _joined([p.times.fill_null(_NULL_TIME).to_numpy(zero_copy_only=False) for p in self._parts])
        # Invalid times near the limits of int64 would overflow when disorder is added.
        return np.clip(flat, NO_WATERMARK, _FURTHEST_MS), appended, offsets, rows, events

    def _null_keys(self, events: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
        """Per row: the index of the first key column that is null, or -1."""
        nulls = np.full(len(events), -1, np.int8)
        found = [p.columns for p in self._parts if p.columns is not None]
        for number, name in reversed(list(enumerate(self._rules.keys))):
            if any(batch.column(name).null_count for batch in found):
                mask = np.concatenate([batch.column(name).is_null().to_numpy(zero_copy_only=False) for batch in found])
                nulls[np.flatnonzero(events)[mask]] = number
        return nulls

    def _columns_of(self, accepted: npt.NDArray[np.bool_]) -> pa.RecordBatch:
        batches = [p.columns for p in self._parts if p.columns is not None]
        if not batches:
            return pa.RecordBatch.from_pylist([], schema=self._rules.columns)
        joined = pa.concat_batches(batches)
        return joined if accepted.all() else joined.filter(pa.array(accepted))

    def _set_rows_aside(
        self, index: Int64s, times: Int64s, timely: npt.NDArray[np.bool_], nulls: npt.NDArray[np.int8]
    ) -> None:
        starts = np.cumsum([0, *(len(p.times) for p in self._parts)])
        for i, number in zip(index.tolist(), (np.searchsorted(starts, index, side="right") - 1).tolist(), strict=True):
            part, row = self._parts[number], i - int(starts[number])
            record = part.record_of(row)
            at = part.times[row].as_py()
            reason, detail = "undecodable", f"event time column {AT} is null"
            if at is not None and not timely[i]:
                reason, detail = "time_out_of_range", self._why_untimely(at, record)
            elif at is not None:
                detail = f"join key column {self._rules.keys[nulls[i]]} is null"
            place = row if part.packed is not None else 0
            self._letter(reason, record, place, at, detail, part.original_of(row))

    def _why_untimely(self, at_ms: int, record: Record) -> str:
        if at_ms < 0:
            return f"event time {format_instant(at_ms)} is before 1970"
        ahead_s, skew_s = (at_ms - record.appended_at_ms) / 1000, self._rules.skew_ms / 1000
        return f"event time {format_instant(at_ms)} is {ahead_s:.15g} s after its append, skew allows {skew_s:.15g} s"

    def _letter(
        self, reason: str, record: Record, row: int, event_at: int | None, detail: str, original: bytes
    ) -> None:
        self._dead.append(
            {
                "reason": reason,
                "topic": self._topic,
                "partition": self._partition,
                "offset": record.offset,
                "row": row,
                "event_at": event_at,
                "detail": detail,
                "original": original,
            }
        )

    def _flush_singles(self) -> None:
        singles, self._singles = self._singles, []
        if not singles:
            return
        try:
            self._parts.append(self._part_of(singles))
        except DamagedError as failure:
            if len(singles) == 1:
                self.set_aside(singles[0][0], str(failure))
                return
            # A value of one event does not fit its column: halve until that event is alone.
            for half in (singles[: len(singles) // 2], singles[len(singles) // 2 :]):
                self._singles = half
                self._flush_singles()

    def _part_of(self, singles: list[tuple[Record, Mapping[str, Any]]]) -> _Part:
        try:
            times = _times([event[AT] for _, event in singles])
            columns = [pa.array([event[f.name] for _, event in singles], f.type) for f in self._rules.columns]
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as failure:
            raise DamagedError(f"a value does not fit its column: {failure}") from failure
        batch = pa.RecordBatch.from_arrays(columns, schema=self._rules.columns)
        return _Part.of([record for record, _ in singles], times, batch, None)


def row_as_json(batch: pa.RecordBatch, row: int) -> bytes:
    """One packed row as a JSON object; types that JSON lacks are written as text.

    >>> row_as_json(pa.record_batch({"at": [7], "item": ["a"]}), 0)
    b'{"at": 7, "item": "a"}'
    """
    values = {name: batch.column(i)[row].as_py() for i, name in enumerate(batch.schema.names)}
    return json.dumps(values, default=str, ensure_ascii=False).encode()


def _joined(arrays: list[Int64s]) -> Int64s:
    return np.concatenate(arrays) if arrays else np.empty(0, np.int64)


def _times(values: list[int | None]) -> pa.Array:
    return pa.array(values, pa.int64())
