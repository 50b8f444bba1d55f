"""The tables of one trainer shard: from a prepared batch to the model's input, and from its gradient back to the rows.

The model sees one `[batch_size, columns]` matrix: every field's pooled rows in the order of the configuration, then the
dense numbers. Admission decides before each step which new keys get a row; expiry sweeps by the log's time behind it.
"""

import numpy as np
import numpy.typing as npt

from pipeline.admission.admit import Admitter
from pipeline.admission.expire import Sweeper
from pipeline.configuration.config import Config
from pipeline.configuration.fields import FieldConfig
from pipeline.trainer.batch.batches import SamplePosition
from pipeline.trainer.batch.prefetch import PreparedBatch
from pipeline.trainer.tables.model_input import ModelInput
from pipeline.trainer.tables.table import Table

Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]


class FieldTable:
    """One field's rows with the filters in front of them. Not thread-safe."""

    def __init__(self, config: FieldConfig, seed: int, half_life_s: float) -> None:
        self.config = config
        self.table = Table(config.dim, config.optimizer, seed, config.init_scale, half_life_s)
        self.admitter = Admitter(config.admission, seed)
        self.sweeper = Sweeper(config.expiry, half_life_s)
        self.expired = 0

    def sweep(self, at_s: int) -> int:
        """Remove what has expired by log time `at_s`; returns how many rows went."""
        keys = self.sweeper.sweep(self.table, at_s)
        expired = self.table.remove(keys) if len(keys) else 0
        self.expired += expired
        return expired


class Tables:
    """Every field's table. Not thread-safe. A batch goes through `admit`, `gather`, `learn` and `sweep`, in this order.

    Where no sweep is due behind a batch, the next one may be admitted between its `gather` and `learn`: the same rows
    come of it.
    """

    def __init__(self, config: Config) -> None:
        self.seed = config.model.seed
        self.fields = {f.name: FieldTable(f, self.seed, config.train.half_life_s) for f in config.fields}
        tables, mean = [f.table for f in self.fields.values()], [f.pooling == "mean" for f in config.fields]
        self._input = ModelInput(tables, mean, len(config.dense), config.model.threads)
        self._names = list(self.fields)
        self._filtered = [i for i, f in enumerate(config.fields) if f.admission.kind != "off"]
        self._unfiltered = [i for i, f in enumerate(config.fields) if f.admission.kind == "off"]
        self._pooled = sum(f.dim for f in config.fields)
        self._matrix = np.zeros((config.model.batch_size, self._pooled + len(config.dense)), np.float32)

    def admit(self, prepared: PreparedBatch, at_s: int, position: SamplePosition) -> dict[str, Int64s]:
        """Find the batch's rows and make those that keys have earned; by field, the places of new keys in its keys."""
        missing = self._input.find([prepared.fields[name] for name in self.fields])
        open_to_all = [number for number in self._unfiltered if missing[number]]
        places = self._input.admit_missing(open_to_all, at_s)
        admitted = {self._names[number]: each for number, each in zip(open_to_all, places, strict=True)}
        for number in self._filtered:
            name = self._names[number]
            batch, resident = prepared.fields[name], self._input.resident(number)
            earned = self.fields[name].admitter.admit(batch.keys, batch.counts, resident, at_s, position)
            admitted[name] = np.flatnonzero(earned & ~resident)
            self._input.admit(number, admitted[name], at_s)
        return admitted

    def gather(self, prepared: PreparedBatch) -> Float32s:
        """[batch_size, columns]: pooled rows and dense numbers; zeros behind the batch's last sample.

        The same memory for every batch: what it holds is gone with the next call.
        """
        n = len(prepared.batch)
        self._matrix[n:] = 0
        self._matrix[:n, self._pooled :] = prepared.dense
        self._input.gather(self._matrix)
        return self._matrix

    def learn(self, gradient: Float32s, at_s: int) -> None:
        """Bring the gradient `[n, columns]` of `gather`'s first n rows back to the tables' rows and update them."""
        self._input.learn(gradient, at_s)

    def sweep_due(self, at_s: int) -> bool:
        """Whether rows may expire at log time `at_s`."""
        return any(field.sweeper.due(at_s) for field in self.fields.values())

    def sweep(self, at_s: int) -> None:
        """Remove what has expired by log time `at_s`."""
        for field in self.fields.values():
            field.sweep(at_s)
