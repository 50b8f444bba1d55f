"""From a batch's keys to the dense network's input and back, for all fields: the face of `native/batch/model_input`.

keys of every table, [u] distinct, as in `TableBatch`; their occurrences in every field, as in `FieldBatch`
  find     → the rows of the batch, each looked up once
  gather   → [n, columns]: every field's pooled rows, in the order of the fields; the dense columns after them stay
             rows of a table that is trained for few bits are rounded as they are read
  learn    ← [n, columns] gradient, to the rows of the batch gathered last, summed over the fields of a table

`find` and `admit` of the next batch may come between `gather` and `learn`: they read no weights. A batch that `defer`
sets aside is learned by `learn_deferred`, after the next one was gathered.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import Bools, Float32s, Int64s
from pipeline.errors import InputError
from pipeline.features.pooling import Pooling
from pipeline.trainer.batch.prefetch import FieldBatch, TableBatch
from pipeline.trainer.tables.table import Table
from pipeline.versions.deltas.rounding import UNROUNDED, RowRounding


class InputField(NamedTuple):
    """How one field reads its table."""

    table: int
    """The number of the table."""
    pooling: Pooling
    """How its rows are pooled."""


class ModelInput:
    """The input of a model over the tables of its fields. Not thread-safe; releases the GIL.

    Between `find` and `learn` or `learn_deferred` of a batch no rows may be removed from the tables. Results do not
    depend on `threads`.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        fields: Sequence[InputField],
        dense_columns: int,
        threads: int,
        roundings: Sequence[RowRounding | None] = (),
    ) -> None:
        """`fields` in the order of their columns; `roundings`: how the rows of each table are read, by default as they
        are."""
        require_integer("threads", threads, 1, 1024)
        self._tables = list(tables)
        native, numbers = [table.native for table in tables], [field.table for field in fields]
        poolings = [(field.pooling.kind, field.pooling.max_length) for field in fields]
        rounded = [UNROUNDED if each is None else each.native for each in roundings]
        try:
            self._input: Any = _native.ModelInput(native, numbers, poolings, dense_columns, threads, rounded)
        except ValueError as failure:
            raise InputError(str(failure)) from None
        self._sizes = [0] * len(self._tables)

    def find(self, tables: Sequence[TableBatch], fields: Sequence[FieldBatch]) -> list[int]:
        """Begin a batch; returns for each table how many of its keys have no row. Raises InputError."""
        keys = [(each.keys, each.counts) for each in tables]
        try:
            occurrences = [(each.inverse, each.offsets, each.weights) for each in fields]
            missing: list[int] = self._call("find", keys, occurrences)
        except InputError:
            _require_arrays(tables, fields)  # only for the message: there are hundreds of arrays per second
            raise
        self._sizes = [len(each.keys) for each in tables]
        return missing

    def resident(self, table: int) -> Bools:
        """[u] which keys of the batch found last have a row in table number `table`."""
        resident = np.empty(self._sizes[table], np.uint8)
        self._call("resident", table, resident)
        return resident.view(np.bool_)

    def admit(self, table: int, places: Int64s, at_s: int) -> None:
        """Make rows for keys without one, [a] distinct places in the batch's keys; `at_s` is log time, s since 1970."""
        require_array("places", places, np.int64, ("a",))
        self._call("admit", table, places, at_s)

    def admit_missing(self, tables: Sequence[int], at_s: int) -> list[Int64s]:
        """Make rows for all keys without one in these tables, in parallel; returns their places [a] for each table."""
        places: list[Int64s] = self._call("admit_missing", list(tables), at_s)
        return places

    def gather(self, out: Float32s) -> None:
        """Write the batch's pooled rows to the first n rows of `out` [≥ n, columns]; no row counts as zeros."""
        require_array("out", out, np.float32, ("rows", "columns"))
        self._call("gather", out)

    def learn(self, gradient: Float32s, at_s: int) -> None:
        """Update the rows by the gradient [≥ n, columns] of the input gathered last. Raises InputError."""
        require_array("gradient", gradient, np.float32, ("rows", "columns"))
        self._call("learn", gradient, at_s)

    def defer(self) -> None:
        """Set the batch gathered last aside, or the one found last if it was not gathered."""
        self._call("defer")

    def learn_deferred(self, gradient: Float32s, at_s: int) -> None:
        """As `learn`, of the batch set aside; rows that are rounded or compared count as they are now."""
        require_array("gradient", gradient, np.float32, ("rows", "columns"))
        self._call("learn_deferred", gradient, at_s)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._input, name)(*arguments)
        except (ValueError, IndexError, RuntimeError, TypeError) as failure:
            raise InputError(f"{name}: {failure}") from None


def _require_arrays(tables: Sequence[TableBatch], fields: Sequence[FieldBatch]) -> None:
    for table in tables:
        require_array("keys", table.keys, np.uint64, ("u",))
        require_array("counts", table.counts, np.uint32, (len(table.keys),))
    for field in fields:
        require_array("inverse", field.inverse, np.int32, ("m",))
        require_array("offsets", field.offsets, np.int64, ("n + 1",))
        require_array("weights", field.weights, np.float32, ("m or 0",))
