"""Predictions from raw columns: the trainer's features and dense network over rows that the caller looks up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.configuration.config import Config
from pipeline.configuration.model.tables import tables_of
from pipeline.errors import InputError, UserCodeError
from pipeline.features.plan import FeaturePlan, Features
from pipeline.features.pooled_rows import RowLookup, write_pooled_rows
from pipeline.features.weights import WeightsError
from pipeline.model.dense import DenseModel
from pipeline.model.identity import serving_digest
from pipeline.model.part import PartModel


class Predictor:
    """Features and dense network of a configuration. Thread-safe for `predict`, except while `load` runs."""

    def __init__(self, config: Config, root: Path, outputs: Sequence[str] | None = None) -> None:
        """Build both from the project folder `root`, for some labels and vectors alone if given.

        Raises ConfigError and ModelError.
        """
        plan, network = FeaturePlan(config, root), DenseModel(config, root)
        self.model_digest = serving_digest(config, plan, network)
        """The digest that a trainer writes into the deltas of this model; outputs alone have that of the whole."""
        self._plan: FeaturePlan = plan
        self._network: DenseModel | PartModel = network
        if outputs is not None:
            self._network = network.part(outputs)
            config = self._network.config
            self._plan = FeaturePlan(config, root)
        self._config, self._fields, self._layout = config, config.fields, self._network.layout

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that predictions look up."""
        return tuple(tables_of(self._fields))

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that predictions depend on, except `at`."""
        return self._plan.columns

    def load(self, dense: bytes) -> None:
        """Replace the dense weights. Raises DamagedError or ModelError; the current weights are then unchanged."""
        self._network.load_serving(dense)

    def features(self, instances: Sequence[Any], now_ms: int, first: int = 0) -> Features:
        """Keys and dense numbers of JSON instances; errors count the instances from `first`.

        Raises InputError, also for a dense number that is not finite as float32, and ModelError.
        """
        batch, at_ms = self._plan.batch_of(instances, now_ms, first)
        try:
            features = self._plan.extract(batch, at_ms)
        except WeightsError as failure:
            raise InputError(f"instance {first + failure.row}, {failure}") from None
        except UserCodeError as failure:
            if failure.row is None:
                raise
            row = first + failure.row
            raise UserCodeError(f"instance {row}: {failure}", row) from failure
        invalid = np.argwhere(~np.isfinite(features.dense))
        if len(invalid):
            row, position = invalid[0]
            number = [d for d in self._config.dense for _ in range(d.width)][position]
            raise InputError(
                f"instance {first + row}, column {number.column}: {batch.column(number.column)[int(row)]} does not fit "
                f"dense input {number.name}, wanted a finite number of 32 bits"
            )
        return features

    def predict(self, features: Features, lookup: RowLookup) -> Float32s:
        """[n, served names] float32, as `DenseModel.predict`."""
        return np.asarray(self._network.predict(self.inputs(features, lookup)), np.float32)

    def warm_up(self) -> None:
        """Compile the network."""
        self._network.predict(np.zeros((1, self._layout.columns), np.float32))

    def inputs(self, features: Features, lookup: RowLookup) -> Float32s:
        """[n, columns] float32: the network's input; bit-identical to the trainer's for equal rows."""
        inputs = np.empty((len(features.dense), self._layout.columns), np.float32)
        write_pooled_rows(self._fields, features.keys, lookup, self._layout.starts, inputs)
        inputs[:, self._layout.dense_start :] = features.dense
        self._network.scale(inputs)
        return inputs
