"""A table: rows by key. The face of the native store.

A row holds weights, optimizer state and statistics of one key, packed as `row_dtype`; the same bytes go into versions
and into the digest. Admission is decided elsewhere; the caller passes log time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import call_native, require_array, require_integer
from pipeline.arrays.types import Bools, Float32s, Float64s, UInt8s, UInt32s, UInt64s
from pipeline.configuration.model.fields import Optimizer
from pipeline.configuration.model.tables import TableConfig
from pipeline.errors import InputError
from pipeline.importance.row_statistics import STATISTICS_DTYPE
from pipeline.versions.runs.sorted_run import SortedRun

Rows = npt.NDArray[np.void]
"""Structured: `row_dtype` or `STATISTICS_DTYPE`."""

MAX_DIM = 1024

_NO_BUDGET = 2**64 - 1

_ABOVE_ZERO = {"learning_rate", "initial_accumulator", "epsilon", "beta"}


def row_dtype(dim: int, state_floats: int) -> np.dtype[np.void]:
    """A packed row: weights float32 [dim], optimizer state float32 [state_floats], statistics.

    >>> row_dtype(16, 1).itemsize
    88
    """
    head = [("weights", "<f4", (dim,)), ("state", "<f4", (state_floats,))]
    return np.dtype(head + [(name, STATISTICS_DTYPE[name]) for name in STATISTICS_DTYPE.names or ()])


def stored_rows(packed: UInt8s, table: TableConfig) -> Rows:
    """[n] `row_dtype`: the rows of a table in a version, packed as [n, row bytes] uint8; the same memory."""
    return packed.view(_dtype_of(table)).reshape(len(packed))


def stored_row_bytes(table: TableConfig) -> int:
    """Bytes of a packed row of a table."""
    return _dtype_of(table).itemsize


def _dtype_of(table: TableConfig) -> np.dtype[np.void]:
    return row_dtype(table.dim, state_floats(table.optimizer, table.dim))


def state_floats(optimizer: Optimizer, dim: int) -> int:
    """Floats of optimizer state in a row.

    >>> from pipeline.configuration.model.fields import Adagrad
    >>> state_floats(Adagrad(kind="adagrad"), 16)
    16
    """
    return int(_native.state_floats(optimizer.kind, dim))


@dataclass(frozen=True)
class Changes:
    """What changed in a table between two calls of `begin_changes`, as of the second."""

    touched: UInt64s
    """[t] uint64, ascending: keys whose row is new or was updated."""
    rows: Rows
    """[t] `row_dtype`: their rows."""
    removed: UInt64s
    """[r] uint64, ascending: keys that lost their row and have no new one."""
    touched_sum: int
    """Σ XXH64(packed row, seed = key) mod 2^64 over `rows`, for `Table.settle`."""
    digest: int
    """The table's digest as of `begin_changes`."""


class ChangeSet:
    """Rows collected from a table, independent of it. `finish` may run in another thread."""

    def __init__(self, collected: Any, dtype: np.dtype[np.void]) -> None:
        self._collected, self._dtype = collected, dtype

    def finish(self) -> Changes:
        """Sort and hash the rows; releases the GIL."""
        touched, packed, removed, touched_sum, digest = self._collected.finish()
        return Changes(touched, packed.view(self._dtype), removed, touched_sum, digest)


class Table:
    """The rows of one table. Several threads may read at once; a change needs exclusive access.

    Every call releases the GIL. Results are the same for any number of threads. Arrays must be C-contiguous and have
    the exact dtype. Every method raises InputError for an array of another dtype or shape and leaves the table
    unchanged. `at_s` is log time, s since 1970.
    """

    def __init__(
        self,
        dim: int,
        optimizer: Optimizer,
        seed: int,
        init_scale: float,
        half_life_s: float,
        *,
        budget_bytes: int | None = None,
        threads: int = 1,
    ) -> None:
        """An empty table.

        Args:
            dim: weights per row, 1 to 1,024.
            optimizer: its kind and settings.
            seed: first weights are a function of it and the key.
            init_scale: first weights are uniform in ± this; 0 makes them zero.
            half_life_s: seconds of log time after which importance has halved.
            budget_bytes: no row is made that would take the table beyond this; see `max_rows`.
            threads: a batch that is large enough is divided among so many.

        Raises:
            InputError: a number is out of its range.
        """
        require_integer("dim", dim, 1, MAX_DIM)
        _check_number("init_scale", init_scale)
        _check_number("half_life_s", half_life_s, above=0)
        options = _options(optimizer)
        budget = _NO_BUDGET if budget_bytes is None else budget_bytes
        require_integer("budget_bytes", budget, 0, _NO_BUDGET)
        require_integer("threads", threads, 1, 1024)
        self._table = call_native(
            _native.Table, dim, optimizer.kind, options, seed % 2**64, init_scale, half_life_s, budget
        )
        self._threads = threads
        self.dim = dim
        self.row_dtype = row_dtype(dim, self._table.state_floats)

    @property
    def native(self) -> Any:
        """The native table, for `ModelInput`."""
        return self._table

    def __len__(self) -> int:
        return len(self._table)

    @property
    def row_bytes(self) -> int:
        """Bytes of one packed row."""
        return self.row_dtype.itemsize

    @property
    def memory_bytes(self) -> int:
        """Bytes of rows, index, flags and the open set of changes: the growth of the process."""
        return int(self._table.memory_bytes)

    @property
    def max_rows(self) -> int:
        """Rows that fit into the budget; `import_rows` is not limited. Memory grows in steps of 2 MiB."""
        return int(self._table.max_rows)

    def admit(self, keys: UInt64s, at_s: int) -> int:
        """Make a row for every key of `keys` [n] uint64 without one; returns the number of new rows.

        At `max_rows` the remaining keys of the batch get none.
        """
        _check_keys(keys)
        return int(call_native(self._table.admit, keys, _seconds(at_s)))

    def contains(self, keys: UInt64s) -> Bools:
        """[n] bool: which of `keys` [n] uint64 have a row."""
        _check_keys(keys)
        resident = np.empty(len(keys), np.uint8)
        call_native(self._table.contains, keys, resident, self._threads)
        return resident.view(np.bool_)

    def lookup(self, keys: UInt64s) -> Float32s:
        """[n, dim] float32: the weights of `keys` [n] uint64, zeros for a key without a row."""
        _check_keys(keys)
        weights = np.empty((len(keys), self.dim), np.float32)
        call_native(self._table.lookup, keys, weights, self._threads)
        return weights

    def update(self, keys: UInt64s, gradients: Float32s, counts: UInt32s, at_s: int) -> None:
        """One optimizer step per key, and its statistics; keys without a row are skipped.

        Args:
            keys: [n] uint64, distinct.
            gradients: [n, dim] float32, of the batch's loss, summed over the key's occurrences in the batch. They are
                not scaled: with a mean loss, importance would shrink as batches grow.
            counts: [n] uint32 ≥ 1, occurrences in the batch.
            at_s: log time of the batch; a row that was seen later retains the later time.

        Raises:
            InputError: also for a repeated key, a count of 0, a gradient that is not finite.
        """
        _check_keys(keys)
        require_array("gradients", gradients, np.float32, (len(keys), self.dim))
        require_array("counts", counts, np.uint32, (len(keys),))
        call_native(self._table.update, keys, gradients, counts, _seconds(at_s), self._threads)

    def remove(self, keys: UInt64s) -> int:
        """Remove the rows of `keys` [n] uint64; returns their number."""
        _check_keys(keys)
        return int(call_native(self._table.remove, keys))

    def keys(self, most: int | None = None) -> UInt64s:
        """[len] uint64: every key that has a row, ascending; or the smallest `most` of them."""
        keys: UInt64s = self._table.keys(len(self) if most is None else most)
        return keys

    def rows(self, keys: UInt64s) -> Rows:
        """[n] `row_dtype`: the packed rows of `keys` [n] uint64. Raises InputError for a key without a row."""
        _check_keys(keys)
        packed = np.empty((len(keys), self.row_bytes), np.uint8)
        call_native(self._table.rows, keys, packed, self._threads)
        return packed.view(self.row_dtype).reshape(len(keys))

    def statistics(self, keys: UInt64s) -> Rows:
        """[n] STATISTICS_DTYPE of `keys` [n] uint64; a key without a row gives (0, 0, 0, 1), as if never seen.

        A cold row gives `last_seen_s` and `importance`; the rest is as of a key without a row.
        """
        _check_keys(keys)
        packed = np.empty((len(keys), STATISTICS_DTYPE.itemsize), np.uint8)
        call_native(self._table.statistics, keys, packed, self._threads)
        return packed.view(STATISTICS_DTYPE).reshape(len(keys))

    def import_rows(self, keys: UInt64s, rows: npt.NDArray[Any]) -> None:
        """Set rows to those of another table of this name, and make the missing ones.

        They count as committed, not as touched: after a restore there are no changes. A key that was touched or removed
        since the last `begin_changes` remains a change.

        Args:
            keys: [n] uint64, distinct.
            rows: [n] `row_dtype`, or the same bytes as [n, row_bytes] uint8.

        Raises:
            InputError: also for a repeated key, or numbers that no row of this table can have.
        """
        _check_keys(keys)
        if isinstance(rows, np.ndarray) and rows.dtype == np.uint8:
            require_array("rows", rows, np.uint8, (len(keys), self.row_bytes))
        else:
            require_array("rows", rows, self.row_dtype, (len(keys),))
        packed = rows.view(np.uint8).reshape(len(keys), self.row_bytes)
        call_native(self._table.import_rows, keys, packed)

    def begin_changes(self) -> None:
        """Freeze the set of keys touched and removed since the last call, in constant time.

        Raises InputError if the set before is not settled: there is one at a time.
        """
        call_native(self._table.begin_changes)

    def collect(self, max_rows: int) -> int:
        """Copy at most `max_rows` frozen rows, as of `begin_changes`; returns how many are left.

        Between two calls the table may be changed: a frozen row is copied before it changes.
        """
        require_integer("max_rows", max_rows, 1, 2**32 - 1)
        return int(call_native(self._table.collect, max_rows))

    @property
    def frozen_rows(self) -> int:
        """Frozen rows that are not collected yet."""
        return int(self._table.frozen_rows)

    def release_collected(self) -> ChangeSet:
        """The complete set. Raises InputError while rows are left to collect."""
        return ChangeSet(call_native(self._table.release_collected), self.row_dtype)

    def keys_before(self) -> UInt64s:
        """[n] uint64, in any order: keys that had a row at `begin_changes`; without an open set, that have one now."""
        keys: UInt64s = self._table.keys_before()
        return keys

    def rows_before(self, keys: UInt64s) -> Rows:
        """[n] `row_dtype`: rows as of `begin_changes`; without an open set, as now. Raises InputError as `rows`."""
        rows = np.empty(len(keys), self.row_dtype)
        if self.read_before(keys, rows).any():
            raise InputError("rows: got keys of cold rows, wanted resident ones. hint: swap_in() first")
        return rows

    def read_before(self, keys: UInt64s, out: Rows) -> Bools:
        """As `rows_before`, into `out` [n] `row_dtype`.

        Returns [n] bool, which of them are cold: these are not written, and have not changed since `begin_changes`.
        """
        _check_keys(keys)
        require_array("out", out, self.row_dtype, (len(keys),))
        cold = np.empty(len(keys), np.uint8)
        call_native(self._table.rows_before, keys, out.view(np.uint8).reshape(len(keys), self.row_bytes), cold)
        return cold.view(np.bool_)

    def settle(self, changes: Changes) -> None:
        """Fold a finished set into the digest and end it. Raises InputError if none was taken."""
        call_native(self._table.settle, changes.touched_sum)

    @property
    def resident_rows(self) -> int:
        """Rows in memory."""
        return int(self._table.resident_rows)

    @property
    def cold_rows(self) -> int:
        """Rows that are only on disk."""
        return int(self._table.cold_rows)

    @property
    def resident_row_bytes(self) -> int:
        """Bytes of one row in memory, with its entry in the index."""
        return int(self._table.resident_row_bytes)

    @property
    def cold_bytes(self) -> int:
        """Bytes of memory for the keys of cold rows."""
        return int(self._table.cold_bytes)

    def cold(self, keys: UInt64s) -> Bools:
        """[n] bool: which of `keys` [n] uint64 have a cold row. Any thread, but not beside `swap_in` or `swap_out`."""
        _check_keys(keys)
        cold = np.empty(len(keys), np.uint8)
        call_native(self._table.cold, keys, cold)
        return cold.view(np.bool_)

    def sample_worths(self, count: int) -> Float64s:
        """[≤ count] what rows that may be swapped out are worth to keep: log2(1 + count) + last seen / half-life."""
        worths = np.empty(count, np.float64)
        return worths[: call_native(self._table.sample_worths, worths)]

    def swap_out(self, worth: float, max_rows: int, max_scanned: int, pinned: Sequence[UInt64s] = ()) -> int:
        """Drop rows of at most this worth that did not change since the last `begin_changes`; returns their number.

        Args:
            worth: as `sample_worths`.
            max_rows: to drop.
            max_scanned: rows that are looked at; the next call continues behind them.
            pinned: [n] uint64 each, keys whose rows stay.

        Raises:
            InputError: a set of changes is open.
        """
        for keys in pinned:
            _check_keys(keys)
        return int(call_native(self._table.swap_out, worth, max_rows, max_scanned, list(pinned)))

    def swap_in(self, keys: UInt64s, rows: UInt8s) -> int:
        """Bring cold rows back, as [n, row_bytes] uint8 as they were dropped; returns how many of them were cold.

        Raises InputError for a key without a row, and a row that is not the one that was dropped.
        """
        _check_keys(keys)
        require_array("rows", rows, np.uint8, (len(keys), self.row_bytes))
        return int(call_native(self._table.swap_in, keys, rows))

    def reserve_cold(self, rows: int) -> None:
        """Allocate memory for the keys of about so many cold rows."""
        call_native(self._table.reserve_cold, rows)

    def import_cold(self, runs: Sequence[SortedRun], first: int, last: int) -> None:
        """Make a cold row of each that the runs, oldest first, merged have with a key from `first` to `last`.

        They count as committed. Raises InputError for a damaged block, a row that no table of this kind can have, and a
        key that has a row; the table is unchanged then.
        """
        parts, indexes = [run.bytes for run in runs], [run.index for run in runs]
        call_native(self._table.import_cold, parts, indexes, first, last)

    def drain_changes(self) -> tuple[UInt64s, UInt64s]:
        """Begin, collect and settle a set at once; returns (touched, removed), as in `Changes`."""
        touched, removed = call_native(self._table.drain_changes)
        return touched, removed

    def digest(self) -> int:
        """Σ XXH64(packed row, seed = key) mod 2^64 over all rows as of the last set of changes, and imports since.

        While a set is open, from `begin_changes` to `settle`, the sum is without its rows.
        """
        return int(self._table.digest())

    def scan_digest(self) -> int:
        """The same sum over all rows as of now, computed anew: equals `digest` right after `drain_changes`."""
        return int(self._table.scan_digest())


def _options(optimizer: Optimizer) -> Any:
    """The native form of an optimizer's settings. Raises InputError for a number that is out of range as float32."""
    options = _native.OptimizerOptions()
    for name, value in optimizer.model_dump(exclude={"kind"}).items():
        _check_number(name, value, above=0 if value > 0 or name in _ABOVE_ZERO else None)
        setattr(options, name, value)
    return options


def _check_keys(keys: UInt64s) -> None:
    require_array("keys", keys, np.uint64, ("n",))


def _check_number(name: str, value: float, above: float | None = None) -> None:
    as_stored = float(np.float32(value)) if abs(value) < 3e38 else math.inf
    if not math.isfinite(as_stored) or (as_stored < 0 if above is None else as_stored <= above):
        wanted = "a finite number >= 0" if above is None else f"a finite number > {above:g}"
        raise InputError(f"{name}: got {value}, wanted {wanted}")


def _seconds(at_s: int) -> int:
    require_integer("at_s, seconds since 1970", at_s, 0, 2**32 - 1)
    return int(at_s)
