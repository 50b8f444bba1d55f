"""The cold rows of one table: rows that are only on disk, in the files of CURRENT."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from pipeline.arrays.types import UInt8s, UInt64s
from pipeline.trainer.tables.table import Table
from pipeline.versions.runs.sorted_run import SortedRun

_CHUNK_ROWS = 32_768
"""Rows that are read at once to be removed."""


class StoredRows(Protocol):
    """Where cold rows are read: `RowReader`."""

    def rows(self, table: str, keys: UInt64s) -> UInt8s:
        """[n, row bytes] of `keys` [n], in any thread. Raises DamagedError."""

    def reading(self, table: str) -> Callable[[UInt64s], UInt8s]:
        """As `rows` of a table, as of now: of the version that is read now."""

    def largest(self, table: str) -> int:
        """About how many rows a table has."""

    def restore(self, table: str, take: Callable[[Sequence[SortedRun], int, int], None]) -> None:
        """Call `take(runs, first, last)` for consecutive ranges of keys: the runs, oldest first, merged are all rows.

        Raises DamagedError, also for an InputError of `take`.
        """

    def pieces(self, table: str) -> Iterator[tuple[UInt64s, UInt8s]]:
        """All rows of a table, a bounded number at a time: keys [n] and rows [n, row bytes]. Raises DamagedError."""


class ColdTable:
    """A table with cold rows. `fetch` and `read` may be called by any thread, the rest by the training thread."""

    def __init__(self, name: str, table: Table, stored: StoredRows) -> None:
        self.name, self.table, self._stored = name, table, stored
        self._lock = threading.Lock()
        self.reads = 0
        """Rows read from disk so far."""
        self.misses = 0
        """Of these, those that a batch needed and that were not read ahead."""
        self.swapped_out = 0
        """Rows dropped from memory so far."""

    def fetch(self, keys: UInt64s) -> tuple[UInt64s, UInt8s]:
        """Those of `keys` that are cold [c], and their rows [c, row bytes]. Raises DamagedError."""
        with self._lock:  # a row that is cold now is in the version that is read now
            cold = keys[self.table.cold(keys)] if self.table.cold_rows else keys[:0]
            reading = self._stored.reading(self.name)
            self.reads += len(cold)
        return cold, reading(cold)

    def read(self, keys: UInt64s) -> UInt8s:
        """[n, row bytes]: the rows of cold `keys`. Raises DamagedError."""
        with self._lock:
            self.reads += len(keys)
        return self._stored.rows(self.name, keys)

    def swap_in(self, keys: UInt64s, rows: UInt8s) -> None:
        """Bring rows back that `fetch` returned, as far as they are still cold."""
        with self._lock:
            cold = self.table.cold(keys)
            self.table.swap_in(keys[cold], rows[cold])

    def swap_out(self, worth: float, max_rows: int, max_scanned: int, pinned: Callable[[], Sequence[UInt64s]]) -> int:
        """As `Table.swap_out`; `pinned` is called while no `fetch` looks which keys are cold."""
        with self._lock:
            dropped = self.table.swap_out(worth, max_rows, max_scanned, pinned())
        self.swapped_out += dropped
        return dropped

    def swap_in_missed(self, keys: UInt64s) -> bool:
        """Read and bring back those of `keys` that are cold although they were not read ahead; whether there were any.

        Raises DamagedError.
        """
        cold, rows = self.fetch(keys)
        self.misses += len(cold)
        if len(cold):
            self.swap_in(cold, rows)
        return len(cold) > 0

    def restore(self) -> None:
        """Make a cold row of each that the version has, in a table without rows. Raises DamagedError."""
        self.table.reserve_cold(self._stored.largest(self.name))
        self._stored.restore(self.name, self.table.import_cold)

    def stored(self) -> Iterator[tuple[UInt64s, UInt8s]]:
        """As `StoredRows.pieces`."""
        return self._stored.pieces(self.name)

    def remove(self, keys: UInt64s) -> int:
        """Remove the rows of `keys`, cold ones included; returns their number. Raises DamagedError."""
        removed, keys = 0, np.sort(keys)
        for start in range(0, len(keys), _CHUNK_ROWS):
            chunk = keys[start : start + _CHUNK_ROWS]
            self.swap_in(*self.fetch(chunk))
            removed += self.table.remove(chunk)
        return removed
