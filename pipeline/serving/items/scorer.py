"""Orders items by a label of the model: attention or any other network over user and item.

What users decide is computed once for a request, what items decide once for a version, each with the layers that read
their inputs alone; for a pair the other layers remain. A field that reads columns of both sides, such as a cross of
user and item, belongs to neither; the scorer may not read one.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.configuration.config import Config
from pipeline.configuration.model.fields import DenseConfig, FieldConfig
from pipeline.errors import ConfigError, ModelError
from pipeline.features.plan import Features
from pipeline.features.pooled_rows import RowLookup, write_pooled_rows
from pipeline.model.dense import DenseModel
from pipeline.model.pair import PairSide


class Half:
    """What one side decides of the scores."""

    def __init__(self, side: PairSide) -> None:
        self.config, self._layout, self._side = side.config, side.layout, side
        """The configuration has the fields and dense inputs of the side."""

    def parts(self, features: Features, lookup: RowLookup) -> Float32s:
        """[n, c] float32 of n rows. Raises ModelError."""
        inputs = np.empty((len(features.dense), self._layout.columns), np.float32)
        write_pooled_rows(self.config.fields, features.keys, lookup, self._layout.starts, inputs)
        inputs[:, self._layout.dense_start :] = features.dense
        return self._side.parts(inputs)


class Scorer:
    """Thread-safe for `scores` and `parts`, except while `load` runs."""

    def __init__(self, config: Config, root: Path, label: str, item_columns: Collection[str]) -> None:
        """Build the network of a label; items decide what it reads of `item_columns` alone.

        Raises ModelError, and ConfigError if a field or dense input reads columns of both sides.
        """
        self._network = DenseModel(config, root).pair(label, lambda own: _of_items(own, item_columns, label))
        self._label = label
        self.users, self.items = Half(self._network.users), Half(self._network.items)
        """What users, and what items, decide."""

    def load(self, dense: bytes) -> None:
        """Replace the dense weights. Raises DamagedError or ModelError."""
        self._network.load_serving(dense)

    def scores(self, user: Float32s, items: Float32s) -> Float32s:
        """[n] float32: the predictions of the label for a user's parts [c] and those of n items [n, d].

        One that is not finite gives minus infinity. Raises ModelError, also if none of n > 0 is finite.
        """
        found = self._network.scores(user, items)
        finite = np.isfinite(found)
        if len(found) and not finite.any():
            raise ModelError(f"a prediction of {self._label} is not finite. hint: check the weights of the model")
        return np.where(finite, found, np.float32(-np.inf))


def _of_items(config: Config, item_columns: Collection[str], label: str) -> set[str]:
    """The fields and dense inputs that items decide. Raises ConfigError."""
    read: list[FieldConfig | DenseConfig] = [*config.fields, *config.dense]
    return {each.name for each in read if _is_of_items(each, item_columns, label)}


def _is_of_items(read: FieldConfig | DenseConfig, item_columns: Collection[str], label: str) -> bool:
    columns = {read.column} if isinstance(read, DenseConfig) else {*read.columns, *filter(None, [read.weights])}
    both = columns & {*item_columns}
    if both and both != columns:
        raise ConfigError(
            f"recall.scorer {label} reads {read.name} of {', '.join(sorted(columns))}: columns of users and of items. "
            f"hint: items have {', '.join(sorted(item_columns))}; use a label without {read.name}"
        )
    return bool(both)
