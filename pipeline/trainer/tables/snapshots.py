"""The rows of all tables as of one batch boundary, for the commit that is made of them while training continues."""

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial

import numpy as np

from pipeline.arrays.per_field import field_thread_pool
from pipeline.arrays.types import UInt64s
from pipeline.trainer.tables.boundary import BoundaryCalls
from pipeline.trainer.tables.cold_table import ColdTable
from pipeline.trainer.tables.table import Changes, ChangeSet, Rows, Table
from pipeline.versions.deltas.rounding import RowRounding

_SLICE_ROWS = 32_768
"""Rows that training copies at one boundary: about two milliseconds."""


class TableSnapshot:
    """One table as of its last `begin_changes`, until the set is settled; after that, as it is now.

    Thread-safe, but not for the training thread: every read of the table is a call at a boundary.
    """

    def __init__(
        self,
        table: Table,
        calls: BoundaryCalls,
        rounding: RowRounding | None = None,
        cold: ColdTable | None = None,
    ) -> None:
        """`cold`: reads the rows of the table that are not in memory."""
        self._table, self._calls, self.rounding, self._cold = table, calls, rounding, cold

    def keys(self) -> UInt64s:
        """[n] uint64, every key that had a row, ascending."""
        return np.sort(self._calls.run(self._table.keys_before))

    def rows(self, keys: UInt64s) -> Rows:
        """[n] `row_dtype` of `keys` [n] uint64, all of which had a row. Raises DamagedError for a cold one."""
        rows = np.empty(len(keys), self._table.row_dtype)
        for start in range(0, len(keys), _SLICE_ROWS):
            part = slice(start, start + _SLICE_ROWS)
            cold = self._calls.run(partial(self._table.read_before, keys[part], rows[part]))
            # A cold row does not change: it is the same in the version before as in this one.
            if self._cold is not None and cold.any():
                rows[part][cold] = self._cold.read(keys[part][cold]).view(rows.dtype).reshape(-1)
        return rows


class OpenChanges:
    """What changed in every table up to the boundary at which this was made. One at a time.

    The training thread makes it; the commit calls `collect` and then, when it has read all rows it needs, `settle`.
    """

    def __init__(self, tables: Mapping[str, Table], calls: BoundaryCalls) -> None:
        """Freeze the tables as they are and copy as many changed rows as one boundary allows, mostly all of them."""
        self._tables, self._calls = dict(tables), calls
        for table in self._tables.values():
            table.begin_changes()
        self._incomplete = list(self._tables)
        self._collected = self._collect_slice()

    def collect(self) -> dict[str, Changes]:
        """By table, what changed since the `OpenChanges` before, with the rows as of this boundary.

        A table is sorted and hashed while the tables after it are still being copied.
        """
        collected = self._collected
        finishing: dict[str, Future[Changes]] = {}
        with field_thread_pool() as workers:
            while True:
                finishing |= {name: workers.submit(rows.finish) for name, rows in collected.items()}
                if len(finishing) == len(self._tables):
                    return {name: work.result() for name, work in finishing.items()}
                collected = self._calls.run(self._collect_slice)

    def settle(self, changes: Mapping[str, Changes]) -> None:
        """Drop the frozen rows at the next boundary; `changes` is the result of `collect`."""

        def settle_tables() -> None:
            for name, table in self._tables.items():
                table.settle(changes[name])

        self._calls.run_later(settle_tables)

    def _collect_slice(self) -> dict[str, ChangeSet]:
        """Copy as many rows as one boundary allows; returns the sets that are complete with it."""
        budget = _SLICE_ROWS
        complete: dict[str, ChangeSet] = {}
        while self._incomplete and budget > 0:
            name = self._incomplete[0]
            table = self._tables[name]
            if before := table.frozen_rows:
                left = table.collect(budget)
                budget -= before - left
                if left:
                    break
            complete[name] = table.release_collected()
            self._incomplete.pop(0)
        return complete
