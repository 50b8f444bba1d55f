"""Predictions from raw columns: the trainer's features and dense network over rows that the caller looks up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.configuration.config import Config
from pipeline.configuration.model.tables import tables_of
from pipeline.features.plan import FeaturePlan, Features
from pipeline.features.pooled_rows import RowLookup, write_pooled_rows
from pipeline.model.dense import DenseModel
from pipeline.model.identity import serving_digest
from pipeline.model.part import PartModel
from pipeline.serving.instance_reader import InstanceReader


class Predictor:
    """Features and dense network of a configuration. Thread-safe for `predict`, except while `load` runs."""

    def __init__(self, config: Config, root: Path, outputs: Sequence[str] | None = None) -> None:
        """Build both from the project folder `root`, for some labels and vectors alone if given.

        Raises ConfigError and ModelError.
        """
        plan, network = FeaturePlan(config, root), DenseModel(config, root)
        self.model_digest = serving_digest(config, plan, network)
        """The digest that a trainer writes into the deltas of this model; outputs alone have that of the whole."""
        self._network: DenseModel | PartModel = network
        if outputs is not None:
            self._network = network.part(outputs)
            config = self._network.config
        self.config = config
        """The configuration with the fields and dense inputs that predictions depend on."""
        self._reader, self._fields, self._layout = InstanceReader(config, root), config.fields, self._network.layout

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that predictions look up."""
        return tuple(tables_of(self._fields))

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that predictions depend on, except `at`."""
        return self._reader.columns

    def load(self, dense: bytes) -> None:
        """Replace the dense weights. Raises DamagedError or ModelError; the current weights are then unchanged."""
        self._network.load_serving(dense)

    def features(self, instances: Sequence[Any], now_ms: int, first: int = 0) -> Features:
        """As `InstanceReader.features`."""
        return self._reader.features(instances, now_ms, first)

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
