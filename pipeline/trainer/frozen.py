"""The rows of all fields as they were at one batch boundary, for the commit made of them while training goes on."""

from collections.abc import Mapping

import numpy as np

from pipeline.ground.block import UInt64s
from pipeline.ground.by_field import by_field
from pipeline.trainer.boundary import Boundary
from pipeline.trainer.store import Changes, ChangeSet, Rows, Table

_SLICE_ROWS = 32_768
"""Rows that training copies at one boundary: about two milliseconds."""


class FrozenRows:
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


class FrozenTables:
    """A model's tables as of one batch boundary. `begin` is the training thread's, the rest the commit's."""

    def __init__(self, tables: Mapping[str, Table], boundary: Boundary) -> None:
        self._tables, self._boundary = dict(tables), boundary
        self.rows = {name: FrozenRows(table, boundary) for name, table in tables.items()}
        self._sets: dict[str, ChangeSet] | None = None

    def begin(self) -> None:
        """Freeze what every table is now, and copy as many changed rows as one boundary allows: all of them mostly."""
        for table in self._tables.values():
            table.begin_changes()
        self._sets = self._collect_some()

    def changes(self) -> dict[str, Changes]:
        """By field, what changed between the last two `begin`, with the rows as of the last."""
        while (sets := self._sets) is None:
            self._sets = self._boundary.ask(self._collect_some)
        return by_field(lambda name: sets[name].finish(), sets)

    def end(self, changes: Mapping[str, Changes]) -> None:
        """Let the tables forget what they were, at the next boundary; `changes` is what `changes` gave."""

        def settle() -> None:
            for name, table in self._tables.items():
                table.settle(changes[name])

        self._boundary.tell(settle)

    def _collect_some(self) -> dict[str, ChangeSet] | None:
        """Copy as many rows as one boundary allows; returns the sets once that was all."""
        budget = _SLICE_ROWS
        for table in self._tables.values():
            before = table.frozen_rows
            if before:
                budget -= before - table.collect(budget)
            if budget <= 0:
                return None
        return {name: table.take_collected() for name, table in self._tables.items()}
