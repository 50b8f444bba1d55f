"""The tables of one trainer shard: from a prepared batch to the model's input, and from its gradient back to the rows.

The model sees one `[batch_size, columns]` tensor: every field's pooled rows in the order of the configuration, then the
dense numbers. Admission decides before each step which new keys get a row; expiry sweeps by the log's time.
"""

import numpy as np
import numpy.typing as npt

from pipeline.admission.admit import Admitter
from pipeline.admission.expire import Sweeper
from pipeline.ground.config import Config, FieldConfig
from pipeline.trainer.batches import Position
from pipeline.trainer.pooling import pool, unpool
from pipeline.trainer.prefetch import FieldBatch, PreparedBatch
from pipeline.trainer.store import Table

Float32s = npt.NDArray[np.float32]


class FieldTable:
    """One field's rows with the filters in front of them. Not thread-safe."""

    def __init__(self, config: FieldConfig, seed: int, half_life_s: float) -> None:
        self.config = config
        self.rows = Table(config.dim, config.optimizer, seed, config.init_scale, half_life_s)
        self.admitter = Admitter(config.admission, seed)
        self.sweeper = Sweeper(config.expiry, half_life_s)

    def admit(self, batch: FieldBatch, at_s: int, position: Position) -> npt.NDArray[np.int64]:
        """Give rows to the keys that have earned one; returns those keys' indices in `batch.keys`, [a]."""
        resident = self.rows.contains(batch.keys)
        earned = self.admitter.filter(batch.keys, batch.counts, resident, at_s, position) & ~resident
        index = np.flatnonzero(earned)
        if len(index):
            self.rows.admit(batch.keys[index], at_s)
        return index

    def sweep(self, at_s: int) -> int:
        """Remove what has expired by log time `at_s`; returns how many rows went."""
        keys = self.sweeper.sweep(self.rows, at_s)
        return self.rows.remove(keys) if len(keys) else 0


class Tables:
    """Every field's table. Not thread-safe."""

    def __init__(self, config: Config) -> None:
        self.seed = config.model.seed
        self.fields = {f.name: FieldTable(f, self.seed, config.train.half_life_s) for f in config.fields}
        self._batch_size = config.model.batch_size
        self._columns = sum(f.dim for f in config.fields) + len(config.dense)

    def gather(self, prepared: PreparedBatch) -> Float32s:
        """[batch_size, columns]: pooled rows and dense numbers; zeros behind the batch's last sample."""
        inputs = np.zeros((self._batch_size, self._columns), np.float32)
        n, start = len(prepared.batch), 0
        for name, table in self.fields.items():
            field = prepared.fields[name]
            rows = table.rows.lookup(field.keys)
            pool(rows, field.inverse, field.offsets, table.config.pooling == "mean", inputs[:n], start)
            start += table.config.dim
        inputs[:n, start:] = prepared.dense
        return inputs

    def learn(self, prepared: PreparedBatch, gradient: Float32s, at_s: int) -> None:
        """Scatter the gradient `[n, columns]` of `gather`'s first n rows back to the tables' rows and update them."""
        start = 0
        for name, table in self.fields.items():
            field, dim = prepared.fields[name], table.config.dim
            mean = table.config.pooling == "mean"
            rows = unpool(gradient, start, dim, field.inverse, field.offsets, mean, len(field.keys))
            table.rows.update(field.keys, rows, field.counts, at_s)
            start += dim
