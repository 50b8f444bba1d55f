"""A table with the filters in front of it: which keys are admitted, which rows expire."""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.admission.admit import Admitter
from pipeline.admission.expire import Sweeper
from pipeline.arrays.types import UInt8s, UInt64s
from pipeline.configuration.model.tables import TableConfig
from pipeline.trainer.tables.cold_table import ColdTable, StoredRows
from pipeline.trainer.tables.table import Rows, Table
from pipeline.versions.deltas.rounding import RowRounding


@dataclass(frozen=True)
class TableCounts:
    """A table at one batch boundary."""

    rows: int
    memory_bytes: int
    admitted: int
    """Rows made since the process opened the shard."""
    expired: int
    """Rows removed since then."""
    cold_rows: int = 0
    """Rows that are only on disk."""
    cold_reads: int = 0
    """Rows read from disk since then."""
    prepare_misses: int = 0
    """Of these, those that a batch needed and that were not read ahead."""
    swapped_out: int = 0
    """Rows dropped from memory since then."""


@dataclass(frozen=True)
class TableState:
    """What a version holds of a table: rows [n], and the bytes of its filters."""

    keys: UInt64s
    rows: UInt8s
    """[n, row bytes]"""
    admission: bytes
    expiry: bytes


class FilteredTable:
    """Rows and filters of one table. Not thread-safe."""

    def __init__(
        self,
        config: TableConfig,
        seed: int,
        half_life_s: float,
        state: TableState | None = None,
        stored: StoredRows | None = None,
    ) -> None:
        """Empty, or as `state` has it; with `stored`, where cold rows are read, rows may be swapped out.

        Raises DamagedError and MigrationError for a state that does not fit.
        """
        self.table = Table(config.dim, config.optimizer, seed, config.init_scale, half_life_s)
        self.cold = ColdTable(config.name, self.table, stored) if stored is not None else None
        self.admitter = Admitter(config.admission, seed)
        self.sweeper = Sweeper(config.expiry, half_life_s)
        self.rounding = RowRounding.of(config)
        self._restored, self._expired = 0, 0
        if state is not None:
            self.table.import_rows(state.keys, np.ascontiguousarray(state.rows))
            self._restored = len(state.keys)
            self.admitter = Admitter.from_bytes(config.admission, seed, state.admission)
            self.sweeper = Sweeper.from_bytes(config.expiry, half_life_s, state.expiry)

    def restore_cold(self) -> None:
        """As `ColdTable.restore`, of a table with `stored`."""
        assert self.cold is not None, "without stored rows none are cold"
        self.cold.restore()
        self._restored = len(self.table)

    def statistics(self, keys: UInt64s) -> Rows:
        """As `Table.statistics`, complete for cold rows too. Raises DamagedError."""
        found = self.table.statistics(keys)
        if self.cold is not None and self.table.cold_rows:
            places = np.flatnonzero(self.table.cold(keys))
            rows = self.cold.read(keys[places]).view(self.table.row_dtype).reshape(-1)
            for name in found.dtype.names or ():
                found[name][places] = rows[name]
        return found

    def sweep(self, at_s: int) -> None:
        """Remove what has expired by log time `at_s`. Raises DamagedError if a cold row cannot be read."""
        keys = self.sweeper.sweep(self.table, at_s)
        self._expired += (self.cold or self.table).remove(keys) if len(keys) else 0

    def counts(self) -> TableCounts:
        rows = len(self.table)
        counts = TableCounts(rows, self.table.memory_bytes, rows + self._expired - self._restored, self._expired)
        cold = self.cold
        if cold is None:
            return counts
        return replace(
            counts,
            cold_rows=self.table.cold_rows,
            cold_reads=cold.reads,
            prepare_misses=cold.misses,
            swapped_out=cold.swapped_out,
        )
