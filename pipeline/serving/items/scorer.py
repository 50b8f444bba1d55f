"""Orders the items that a scan found by a label of the model: attention or any other network over user and item.

What users decide of its inputs is looked up once for a request, what items decide once for a version: a request joins
both and runs the network on the pairs. A field that reads columns of both sides, such as a cross of user and item, has
no such half; the scorer may not read one.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from pipeline.arrays.types import Float32s, Int64s, UInt64s
from pipeline.configuration.config import Config
from pipeline.configuration.model.fields import DenseConfig, FieldConfig
from pipeline.errors import ConfigError, ModelError
from pipeline.features.plan import Features
from pipeline.features.pooled_rows import RowLookup, write_pooled_rows
from pipeline.model.dense import DenseModel
from pipeline.model.network.layout import Layout

_SPARE = 1.25
"""Rows are allocated for so many times the items there are."""


class Half:
    """What one side decides of the inputs of a network."""

    def __init__(self, config: Config, whole: Layout) -> None:
        """`config` has the fields and dense inputs of the side, `whole` is the layout of both sides' inputs."""
        self.config, self._layout = config, Layout.of(config)
        widths = dict(zip(whole.names, whole.widths, strict=True))
        places = [np.arange(whole.starts[name], whole.starts[name] + widths[name]) for name in self._layout.names]
        self.places: Int64s = np.concatenate([np.empty(0, np.int64), *places])
        """[c] columns of the inputs that it decides."""

    def inputs(self, features: Features, lookup: RowLookup) -> Float32s:
        """[n, c] float32 of n rows."""
        found = np.empty((len(features.dense), self._layout.columns), np.float32)
        write_pooled_rows(self.config.fields, features.keys, lookup, self._layout.starts, found)
        found[:, self._layout.dense_start :] = features.dense
        return found


class Scorer:
    """Thread-safe for `scores`, except while `load` runs."""

    def __init__(self, config: Config, root: Path, label: str, item_columns: Collection[str]) -> None:
        """Build the network of a label; items decide what it reads of `item_columns` alone.

        Raises ModelError, and ConfigError if a field or dense input reads columns of both sides.
        """
        self._network, self._label = DenseModel(config, root).part((label,)), label
        own, layout = self._network.config, self._network.layout
        read: list[FieldConfig | DenseConfig] = [*own.fields, *own.dense]
        of_items = {each.name for each in read if _is_of_items(each, item_columns, label)}
        self.items = Half(_with_inputs(own, of_items), layout)
        """What items decide."""
        self.users = Half(_with_inputs(own, {*layout.names} - of_items), layout)
        """What users decide."""

    def load(self, dense: bytes) -> None:
        """Replace the dense weights. Raises DamagedError or ModelError."""
        self._network.load_serving(dense)

    def scores(self, user: Float32s, items: Float32s) -> Float32s:
        """[n] float32: the predictions of the label for a user's inputs [c] and those of n items [n, d].

        Raises ModelError, also for a prediction that is not finite.
        """
        inputs = np.empty((len(items), self._network.layout.columns), np.float32)
        inputs[:, self.users.places] = user
        inputs[:, self.items.places] = items
        self._network.scale(inputs)
        found: Float32s = self._network.predict(inputs)[:, 0]
        if not np.isfinite(found).all():
            raise ModelError(f"a prediction of {self._label} is not finite. hint: check the weights of the model")
        return found


class ItemInputs:
    """By id, what items decide of the scorer's inputs. Not thread-safe."""

    def __init__(self) -> None:
        self._rows: Float32s = np.empty((0, 0), np.float32)
        self._slots: dict[int, int] = {}
        self._free: list[int] = []

    def put(self, ids: UInt64s, rows: Float32s) -> None:
        """Insert or replace the rows [n, d] of items."""
        slots = [self._slot_of(id) for id in ids.tolist()]
        if (needed := max(slots, default=-1) + 1) > len(self._rows):
            grown = np.zeros((int(needed * _SPARE), rows.shape[1]), np.float32)
            grown[: len(self._rows)] = self._rows if len(self._rows) else 0
            self._rows = grown
        self._rows[slots] = rows

    def remove(self, ids: UInt64s) -> None:
        """Remove items; unknown ids have no effect."""
        self._free += [slot for id in ids.tolist() if (slot := self._slots.pop(id, None)) is not None]

    def take(self, ids: Sequence[int]) -> Float32s:
        """[n, d] the rows of items that are there."""
        return self._rows[[self._slots[id] for id in ids]]

    def _slot_of(self, id: int) -> int:
        if id not in self._slots:
            self._slots[id] = self._free.pop() if self._free else len(self._slots)
        return self._slots[id]


def _is_of_items(read: FieldConfig | DenseConfig, item_columns: Collection[str], label: str) -> bool:
    columns = {read.column} if isinstance(read, DenseConfig) else {*read.columns, *filter(None, [read.weights])}
    both = columns & {*item_columns}
    if both and both != columns:
        raise ConfigError(
            f"recall.scorer {label} reads {read.name} of {', '.join(sorted(columns))}: columns of users and of items. "
            f"hint: items have {', '.join(sorted(item_columns))}; use a label without {read.name}"
        )
    return bool(both)


def _with_inputs(config: Config, names: Collection[str]) -> Config:
    fields, dense = ([each for each in some if each.name in names] for some in (config.fields, config.dense))
    return config.model_copy(update={"fields": tuple(fields), "dense": tuple(dense)})
