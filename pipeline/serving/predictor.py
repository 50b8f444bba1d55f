"""Predictions from raw columns: the trainer's features and dense network over rows that the caller looks up."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.block import Int64s, UInt64s
from pipeline.configuration.config import Config
from pipeline.features.plan import FeaturePlan, Features
from pipeline.model.dense import DenseModel
from pipeline.model.identity import serving_digest

Floats = npt.NDArray[np.float32]

RowLookup = Callable[[str, UInt64s], Floats]
"""(field, keys [m]) → [m, dim]; zeros for a key without a row."""


class Predictor:
    """Features and dense network of a configuration. Thread-safe for `predict`, except while `load` runs."""

    def __init__(self, config: Config, root: Path) -> None:
        """Build both from the project folder `root`. Raises ConfigError and ModelError."""
        self._plan, self._network = FeaturePlan(config, root), DenseModel(config, root)
        self._config, self._fields, self._layout = config, config.fields, self._network.layout

    @property
    def model_digest(self) -> str:
        """The digest that a trainer writes into the deltas of this model."""
        return serving_digest(self._config, self._plan, self._network)

    def load(self, dense: bytes) -> None:
        """Replace the dense weights. Raises DamagedError or ModelError; the current weights are then unchanged."""
        self._network.load_serving(dense)

    def features(self, instances: Sequence[Any], now_ms: int) -> Features:
        """Keys and dense numbers of JSON instances. Raises InputError."""
        batch, at_ms = self._plan.batch_of(instances, now_ms)
        return self._plan.extract(batch, at_ms)

    def predict(self, features: Features, lookup: RowLookup) -> Floats:
        """[n, labels] float32 probabilities."""
        inputs = np.zeros((len(features.dense), self._layout.columns), np.float32)
        for field in self._fields:
            found, start = features.keys[field.name], self._layout.starts[field.name]
            pooled = pool_rows(lookup(field.name, found.keys), found.offsets, field.pooling == "mean")
            inputs[:, start : start + field.dim] = pooled
        inputs[:, self._layout.dense_start :] = features.dense
        return np.asarray(self._network.predict(inputs), np.float32)


def pool_rows(rows: Floats, offsets: Int64s, mean: bool) -> Floats:
    """Sum or mean of each sample's rows; a sample without keys gives zeros.

    Args:
        rows: [m, dim] float32.
        offsets: [n + 1] int64, sample i has `rows[offsets[i]:offsets[i + 1]]`.
        mean: divide by the number of rows.

    Returns:
        [n, dim] float32.

    >>> pool_rows(np.float32([[1], [3], [5]]), np.array([0, 2, 2, 3]), True).tolist()
    [[2.0], [0.0], [5.0]]
    """
    counts = np.diff(offsets)
    pooled = np.zeros((len(counts), rows.shape[1]), np.float32)
    some = counts > 0
    if some.any():
        pooled[some] = np.add.reduceat(rows, offsets[:-1][some], axis=0)
    if mean:
        pooled[some] /= counts[some, None]
    return pooled
