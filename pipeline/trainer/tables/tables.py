"""The tables of one trainer shard: from a prepared batch to the model's input, and from its gradient back to the rows.

The model sees one `[batch_size, columns]` matrix: every field's pooled rows in the order of the configuration, then the
dense numbers. Admission decides before each step which new keys get a row; expiry sweeps by log time after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.arrays.types import Float32s, Int64s
from pipeline.configuration.config import Config
from pipeline.configuration.model.tables import tables_of
from pipeline.features.pooling import Pooling
from pipeline.trainer.batch.batches import SamplePosition
from pipeline.trainer.batch.held import HeldRows
from pipeline.trainer.batch.prefetch import FieldBatch, PreparedBatch, TableBatch
from pipeline.trainer.tables.cold_table import StoredRows
from pipeline.trainer.tables.cold_tier import ColdTier
from pipeline.trainer.tables.filtered_table import FilteredTable, TableState
from pipeline.trainer.tables.late_gradient import LateGradient
from pipeline.trainer.tables.model_input import InputField, ModelInput


@dataclass(frozen=True)
class AdmittedBatch:
    """A batch whose keys were looked up; those that were admitted have a row."""

    prepared: PreparedBatch
    at_ms: int
    """Log time after this batch."""
    new_keys: Mapping[str, Int64s]
    """By table, the keys admitted with this batch: places in `TableBatch.keys`."""
    inputs: Float32s | None = None
    """Of the network, if it was gathered ahead."""

    @property
    def at_s(self) -> int:
        return self.at_ms // 1000


class Tables:
    """Every table. Not thread-safe. A batch goes through `admit`, `gather`, `learn` and `sweep`, in this order.

    If no sweep is due after a batch, the next one may be admitted between its `gather` and `learn`, with the same rows
    as a result. It may also be gathered there, without what the batch learns: `defer` before that, and `learn_late`
    after the next step has begun.
    """

    def __init__(
        self, config: Config, states: Mapping[str, TableState] | None = None, stored: StoredRows | None = None
    ) -> None:
        """Tables as of `states`; a table without a state starts empty. Raises as `FilteredTable`.

        With `stored`, where rows of CURRENT are read, rows beyond `train.memory_bytes` are swapped out; states have no
        rows then, and the tables begin with cold rows.
        """
        states, seed, half_life_s = states or {}, config.model.seed, config.train.half_life_s
        declared = tables_of(config.fields)
        self.by_name = {
            name: FilteredTable(table, seed, half_life_s, states.get(name), stored) for name, table in declared.items()
        }
        cold = {name: each.cold for name, each in self.by_name.items() if each.cold is not None}
        memory_bytes = config.train.memory_bytes
        self.cold = ColdTier(cold, memory_bytes) if cold and memory_bytes is not None else None
        if self.cold and stored:
            for name in states:
                self.by_name[name].restore_cold()
        self.restored_cold = {name: cold[name] for name in states if name in cold}
        """The tables that were restored, if their rows may be cold."""
        self._names, self._fields = list(self.by_name), [f.name for f in config.fields]
        fields = [InputField(self._names.index(f.table_name), Pooling.of(f)) for f in config.fields]
        tables = [each.table for each in self.by_name.values()]
        roundings = [each.rounding for each in self.by_name.values()]
        self._input = ModelInput(tables, fields, config.dense_columns, config.model.threads, roundings)
        self._filtered = [i for i, t in enumerate(declared.values()) if t.admission.kind != "off"]
        self._unfiltered = [i for i, t in enumerate(declared.values()) if t.admission.kind == "off"]
        self._pooled = sum(Pooling.of(f).width(f.dim) for f in config.fields)
        rows = config.model.batch_size + (config.towers.drawn if config.towers else 0)
        self._matrices = [np.zeros((rows, self._pooled + config.dense_columns), np.float32) for _ in range(2)]
        self.late: LateGradient | None = None
        """Of the batch learned last, if its rows learn it with the next one."""

    def admit(self, prepared: PreparedBatch, at_ms: int, position: SamplePosition) -> AdmittedBatch:
        """Look up the batch's keys and make a row for each that is admitted.

        Args:
            prepared: the batch.
            at_ms: log time after it.
            position: where it begins in the samples log.

        Raises as `ColdTier.prepare`.
        """
        at_s = at_ms // 1000
        held, missing = self._find(*self._keys_of(prepared), prepared.held)
        prepared = replace(prepared, held=held)
        unfiltered = [number for number in self._unfiltered if missing[number]]
        places = self._input.admit_missing(unfiltered, at_s)
        new_keys = {self._names[number]: each for number, each in zip(unfiltered, places, strict=True)}
        for number in self._filtered:
            name, resident = self._names[number], self._input.resident(number)
            batch = prepared.tables[name]
            own = slice(batch.own)  # what only drawn items have is not counted
            admitted = self.by_name[name].admitter.admit(
                batch.keys[own], batch.counts[own], resident[own], at_s, position
            )
            new_keys[name] = np.flatnonzero(admitted)
            self._input.admit(number, new_keys[name], at_s)
        return AdmittedBatch(prepared, at_ms, new_keys)

    def _keys_of(self, prepared: PreparedBatch) -> tuple[list[TableBatch], list[FieldBatch]]:
        return [prepared.tables[name] for name in self._names], [prepared.fields[name] for name in self._fields]

    def _find(
        self, batches: Sequence[TableBatch], fields: Sequence[FieldBatch], held: HeldRows | None
    ) -> tuple[HeldRows | None, list[int]]:
        """Look up a batch's keys: its rows, held if some are not in memory, and for each table how many keys have no
        row."""
        if self.cold is None:
            return None, self._input.find(batches, fields)
        if held is None:
            held = self.cold.prepare({name: each.keys for name, each in zip(self._names, batches, strict=True)})
        self.cold.swap_in(held)
        missing = self._input.find(batches, fields)
        missed = [
            self.cold.swap_in_missed(name, batches[number].keys[~self._input.resident(number)])
            for number, name in enumerate(self._names)
            if missing[number]
        ]
        return held, self._input.find(batches, fields) if any(missed) else missing

    def gather(self, batch: AdmittedBatch) -> Float32s:
        """[batch_size + m, columns]: pooled rows and dense numbers of the batch admitted last, then of its m
        drawn items; zeros after them.

        The memory of two batches in turn: the call after the next overwrites it.
        """
        return self._gather(batch.prepared)

    def gather_known(self, prepared: PreparedBatch) -> Float32s:
        """As `gather`, of a batch that was not admitted: its keys without a row count as zeros."""
        held, _ = self._find(*self._keys_of(prepared), prepared.held)
        if self.cold and held and held is not prepared.held:
            self.cold.release(held)
        return self._gather(prepared)

    def learn(self, batch: AdmittedBatch, gradient: Float32s) -> None:
        """Update the rows of the batch gathered last by the gradient `[rows, columns]` of its input.

        Raises InputError.
        """
        self._input.learn(gradient, batch.at_s)
        self._release(batch.prepared.held)

    def defer(self) -> None:
        """Set the batch gathered last aside: the next one may be gathered before its rows learn."""
        self._input.defer()

    def learn_later(self, batch: AdmittedBatch, gradient: Float32s) -> None:
        """Keep the gradient `[rows, columns]` of the batch set aside for `learn_late`. Raises InputError."""
        late = LateGradient(*self._keys_of(batch.prepared), gradient, batch.at_s, batch.prepared.held)
        late.check()
        self.late = late

    def restore_late(self, late: LateGradient) -> None:
        """Continue with a gradient that a version holds. Raises InputError if it is not of these tables."""
        held, _ = self._find(late.tables, late.fields, None)
        self._input.defer()
        self.late = replace(late, held=held)

    def learn_late(self) -> None:
        """Update the rows of the batch set aside, if there is one."""
        late, self.late = self.late, None
        if late is not None:
            self._input.learn_deferred(late.gradient, late.at_s)
            self._release(late.held)

    def _release(self, held: HeldRows | None) -> None:
        if self.cold and held:
            self.cold.release(held)

    def sweep_due(self, at_s: int) -> bool:
        """Whether rows may expire at log time `at_s`."""
        return any(table.sweeper.due(at_s) for table in self.by_name.values())

    def sweep(self, at_s: int) -> None:
        """Remove what has expired by log time `at_s`."""
        for table in self.by_name.values():
            table.sweep(at_s)

    def _gather(self, prepared: PreparedBatch) -> Float32s:
        self._matrices.reverse()
        matrix = self._matrices[0]
        matrix[prepared.rows :] = 0
        matrix[: prepared.rows, self._pooled :] = prepared.dense
        self._input.gather(matrix)
        return matrix
