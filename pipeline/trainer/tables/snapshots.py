"""The rows of all fields as they were at one batch boundary, for the commit made of them while training goes on."""

from collections.abc import Mapping
from concurrent.futures import Future

import numpy as np

from pipeline.arrays.block import UInt64s
from pipeline.arrays.per_field import field_thread_pool
from pipeline.trainer.tables.boundary import Boundary
from pipeline.trainer.tables.table import Changes, ChangeSet, Rows, Table

_SLICE_ROWS = 32_768
"""Rows that training copies at one boundary: about two milliseconds."""


class TableSnapshot:
    """Reads one table as of its last `begin_changes`. Thread-safe: every look at the table is asked at a boundary."""

    def __init__(self, table: Table, boundary: Boundary) -> None:
        self._table, self._boundary = table, boundary

    def keys(self) -> UInt64s:
        """[n] uint64, every key that had a row, ascending."""
        return np.sort(self._boundary.ask(self._table.keys_before))

    def rows(self, keys: UInt64s) -> Rows:
        """[n] `row_dtype` of `keys` [n] uint64, all of which had a row."""
        rows = np.empty(len(keys), self._table.row_dtype)
        for start in range(0, len(keys), _SLICE_ROWS):
            part = keys[start : start + _SLICE_ROWS]
            rows[start : start + len(part)] = self._read(part)
        return rows

    def _read(self, keys: UInt64s) -> Rows:
        return self._boundary.ask(lambda: self._table.rows_before(keys))


class TableSnapshots:
    """A model's tables as of one batch boundary. `begin` is the training thread's, the rest the commit's."""

    def __init__(self, tables: Mapping[str, Table], boundary: Boundary) -> None:
        self._tables, self._boundary = dict(tables), boundary
        self.fields = {name: TableSnapshot(table, boundary) for name, table in tables.items()}
        self._open: list[str] = []
        self._collected: dict[str, ChangeSet] = {}

    def begin(self) -> None:
        """Freeze what every table is now, and copy as many changed rows as one boundary allows: all of them mostly."""
        for table in self._tables.values():
            table.begin_changes()
        self._open = list(self._tables)
        self._collected = self._collect_some()

    def changes(self) -> dict[str, Changes]:
        """By field, what changed between the last two `begin`, with the rows as of the last.

        A field is sorted and hashed while those behind it are still copied.
        """
        collected = self._collected
        finishing: dict[str, Future[Changes]] = {}
        with field_thread_pool() as workers:
            while True:
                finishing |= {name: workers.submit(rows.finish) for name, rows in collected.items()}
                if len(finishing) == len(self._tables):
                    return {name: work.result() for name, work in finishing.items()}
                collected = self._boundary.ask(self._collect_some)

    def end(self, changes: Mapping[str, Changes]) -> None:
        """Let the tables forget what they were, at the next boundary; `changes` is what `changes` gave."""

        def settle() -> None:
            for name, table in self._tables.items():
                table.settle(changes[name])

        self._boundary.tell(settle)

    def _collect_some(self) -> dict[str, ChangeSet]:
        """Copy as many rows as one boundary allows; returns the sets that are whole by it."""
        budget = _SLICE_ROWS
        whole: dict[str, ChangeSet] = {}
        while self._open and budget > 0:
            name = self._open[0]
            table = self._tables[name]
            if before := table.frozen_rows:
                left = table.collect(budget)
                budget -= before - left
                if left:
                    break
            whole[name] = table.take_collected()
            self._open.pop(0)
        return whole
