"""The cold tier: rows beyond a budget of memory live only in the files of CURRENT, and come back as batches need them.

A row that did not change since its last commit is on disk already, so nothing is written when it is swapped out; the
table keeps its key. The rows of a batch are fetched while it is prepared, in the prefetching thread, and swapped in
before its keys are looked up. What is resident never changes what is learned.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import NamedTuple

import numpy as np

from pipeline.arrays.types import Float64s, UInt8s, UInt64s
from pipeline.errors import ConfigError
from pipeline.trainer.batch.held import HeldRows
from pipeline.trainer.tables.cold_table import ColdTable

_SAMPLES = 512
"""Rows whose worth decides which are swapped out at one boundary."""
_SCANNED_ROWS = 65_536
"""Rows that are looked at at one boundary, normally: about two milliseconds."""
_SCANNED_PER_VICTIM = 8
_READS = 8
"""Tables whose rows are read at the same time: the disk serves them together."""
_ROOM = 1 / 64
"""The share of the budget that is made free once it is exceeded."""


class _Pass(NamedTuple):
    """Which rows are swapped out at one boundary: of so large a share of all rows, those of at most this worth."""

    worth: float
    scanned: float


class ColdTier:
    """All tables of a shard. `prepare` may be called by another thread than the rest."""

    def __init__(self, tables: Mapping[str, ColdTable], memory_bytes: int) -> None:
        self._tables, self._memory_bytes = dict(tables), memory_bytes
        self._held: list[HeldRows] = []
        self._above = False
        self._reads = ThreadPoolExecutor(_READS, thread_name_prefix="cold")

    @property
    def resident_bytes(self) -> int:
        """Bytes of all resident rows, with their entries in the index."""
        return sum(_bytes_of(each) for each in self._tables.values())

    def rows(self) -> dict[str, int]:
        """By table, how many rows are only on disk."""
        return {name: each.table.cold_rows for name, each in self._tables.items()}

    def prepare(self, keys: Mapping[str, UInt64s]) -> HeldRows:
        """Hold the rows of a batch until `release`, and fetch those that are cold. `keys`: by table, distinct.

        Raises:
            ConfigError: the budget is smaller than the rows of the batch.
            DamagedError: a row cannot be read; the message names the file.
        """
        needed = sum(len(each) * self._tables[name].table.resident_row_bytes for name, each in keys.items())
        if needed > self._memory_bytes:
            raise ConfigError(
                f"train.memory_bytes is {self._memory_bytes}, the rows of one batch take {needed}. "
                "hint: raise it, or lower model.batch_size"
            )
        held = HeldRows(keys)
        self._held.append(held)  # first: from here on none of its rows is swapped out
        reading = {name: self._reads.submit(self._tables[name].fetch, each) for name, each in keys.items()}
        wait(reading.values())
        held.fetched |= {name: read.result() for name, read in reading.items()}
        return held

    def close(self) -> None:
        """End the threads that read."""
        self._reads.shutdown()

    def swap_in(self, held: HeldRows) -> None:
        """Bring back the rows that were fetched for a batch, before its keys are looked up."""
        for name, (keys, rows) in held.fetched.items():
            if len(keys):
                self._tables[name].swap_in(keys, rows)
        held.fetched.clear()

    def swap_in_missed(self, name: str, keys: UInt64s) -> bool:
        """As `ColdTable.swap_in_missed`."""
        return self._tables[name].swap_in_missed(keys)

    def release(self, held: HeldRows) -> None:
        """The batch was learned: its rows may be swapped out again."""
        self._held.remove(held)

    def swap_out(self) -> None:
        """Swap out rows beyond the budget, a limited number. Call it when all rows that did not change are on disk."""
        excess = self._excess()
        if excess > 0:
            self._swap_out(excess)

    def share(self) -> float:
        """The share of all rows that the budget holds."""
        needed = sum(len(each.table) * each.table.resident_row_bytes for each in self._tables.values())
        return min(1.0, self._room_bytes / max(needed, 1))

    def swap_in_ahead(self, name: str, keys: UInt64s, rows: UInt8s) -> None:
        """Bring back rows that no batch needs yet, the first that fit the budget. `rows`: as they were swapped out."""
        table = self._tables[name]
        fitting = max(self._room_bytes - self.resident_bytes, 0) // table.table.resident_row_bytes
        table.swap_in(keys[:fitting], rows[:fitting])

    @property
    def _room_bytes(self) -> int:
        """The budget without what is made free once it is exceeded."""
        return int(self._memory_bytes * (1 - _ROOM))

    def _excess(self) -> int:
        """Bytes to swap out: once the budget is exceeded, until some room is free."""
        resident = self.resident_bytes
        excess = resident - self._room_bytes
        self._above = excess > 0 and (self._above or resident > self._memory_bytes)
        return excess if self._above else 0

    def _swap_out(self, excess: int) -> int:
        """One pass; returns the number of bytes swapped out."""
        plan, left = self._plan(excess, self.resident_bytes), excess
        if plan is None:
            return 0
        for name, each in self._tables.items():
            row_bytes = each.table.resident_row_bytes
            scanned = int(plan.scanned * each.table.resident_rows) + 1
            left -= row_bytes * each.swap_out(plan.worth, -(-left // row_bytes), scanned, partial(self._pinned, name))
            if left <= 0:
                break
        return excess - left

    def _pinned(self, name: str) -> list[UInt64s]:
        """Keys of a table whose rows are held."""
        return [held.keys[name] for held in tuple(self._held)]

    def _plan(self, excess: int, resident: int) -> _Pass | None:
        """None if no row may be swapped out."""
        worths, weights = self._sampled(resident)
        if not len(worths):
            return None
        rows = sum(each.table.resident_rows for each in self._tables.values())
        share = excess / resident
        # Far above the budget, as after a long commit, more rows are looked at: the excess has to shrink again.
        scanned = min(1.0, _SCANNED_PER_VICTIM * share, max(_SCANNED_ROWS / rows, share / 2))
        # Where not all rows can be looked at, never more than half of them go, unless so many must.
        wanted = min(share / scanned, max(share, 0.5))
        order = np.argsort(worths)
        passed = np.cumsum(weights[order])
        place = min(int(np.searchsorted(passed, wanted * passed[-1])), len(order) - 1)
        return _Pass(float(worths[order[place]]), scanned)

    def _sampled(self, resident: int) -> tuple[Float64s, Float64s]:
        """Worths of rows of all tables, and how many bytes each stands for."""
        worths: list[Float64s] = []
        weights: list[Float64s] = []
        for each in self._tables.values():
            size = _bytes_of(each)
            found = each.table.sample_worths(max(8, _SAMPLES * size // resident))
            worths.append(found)
            weights.append(np.full(len(found), size / max(len(found), 1)))
        return np.concatenate(worths), np.concatenate(weights)


def _bytes_of(each: ColdTable) -> int:
    return each.table.resident_rows * each.table.resident_row_bytes
