"""Recent items, each once, with the inputs of the item tower as its newest sample had them.

A new item takes the next free slot, or a random one if none is free: how long an item stays does not depend on
its frequency (Aggarwal 2006, "On Biased Reservoir Sampling in the Presence of Stream Evolution", algorithm 2.1). So a
draw of slots is uniform over recent items, as the second sampler of Yang et al. 2020, "Mixed Negative Sampling for
Learning Two-tower Neural Networks in Recommendations". Slots follow from seed and log position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.splitmix import GAMMA, mix
from pipeline.arrays.types import Bools, Float32s, Int64s, UInt64s
from pipeline.features.plan import Features, FieldKeys
from pipeline.formats.container import Container, Section
from pipeline.trainer.items.item_inputs import ItemInputs, ItemRows, no_keys


@dataclass(frozen=True)
class ReservoirChange:
    """What a batch changes: u slots.

    Attributes:
        slots: [u] distinct.
        keys: [u] their items.
        rows: their inputs.
        dense: [u, dense columns of items].
        filled: slots in use afterwards.
    """

    slots: Int64s
    keys: UInt64s
    rows: dict[str, ItemRows]
    dense: Float32s
    filled: int


class ItemReservoir:
    """At most `size` items. Not thread-safe."""

    def __init__(self, size: int, inputs: ItemInputs, seed: int) -> None:
        self._inputs, self._seed = inputs, seed
        self.filled = 0
        self.keys: UInt64s = np.zeros(size, np.uint64)
        """[size] the items of the slots; those in use come first."""
        self.rows = {name: ItemRows.empty(size, name in inputs.weighted) for name in inputs.fields}
        """By field of the item tower, its keys [size]."""
        self.dense: Float32s = np.zeros((size, len(inputs.dense_columns)), np.float32)
        """[size, dense columns of items]"""
        self._slots: dict[int, int] = {}

    def sections(self) -> dict[str, Section]:
        """What `restore` needs, by name."""
        found: dict[str, Section] = {"items": self.keys[: self.filled], "dense": self.dense[: self.filled]}
        for name, rows in self.rows.items():
            keys = rows.at(range(self.filled))
            found |= {f"keys/{name}": keys.keys, f"offsets/{name}": keys.offsets, f"weights/{name}": keys.weights}
        return found

    def restore(self, container: Container, filled: int) -> None:
        """Continue from `sections`, into an empty reservoir. Raises what parsing raises, and DamagedError."""
        self.filled, size = filled, len(self.keys)
        self.keys[:filled] = container.array("items", np.uint64)
        self.dense[:filled] = container.array("dense", np.float32).reshape(filled, self.dense.shape[1])
        for name in self.rows:
            offsets, weights = (container.array(f"{part}/{name}", kind) for part, kind in _OF_LISTS.items())
            found = FieldKeys(container.array(f"keys/{name}", np.uint64), offsets, weights)
            self.rows[name] = ItemRows.from_columns(found, size, name in self._inputs.weighted)
        self._slots = {key: slot for slot, key in enumerate(self.keys[:filled].tolist())}

    def advance(self, keys: UInt64s, features: Features, first: int) -> ReservoirChange:
        """Take in the items of a batch whose first sample has position `first`; returns what changed."""
        distinct, at, inverse = np.unique(keys, return_index=True, return_inverse=True)
        newest = np.zeros(len(distinct), np.int64)
        newest[inverse] = np.arange(len(keys))
        taken, filled = self._slots_of(distinct, at, first)
        places = np.fromiter(taken.values(), np.int64, len(taken))
        rows, inputs = newest[places], self._inputs
        change = ReservoirChange(
            np.fromiter(taken, np.int64, len(taken)),
            distinct[places],
            {name: ItemRows.of(features.keys[name], rows, name in inputs.weighted) for name in inputs.fields},
            features.dense[rows][:, inputs.dense_columns],
            filled,
        )
        self.apply(change)
        return change

    def apply(self, change: ReservoirChange) -> None:
        """Take in a batch as the reservoir that returned `change` did."""
        for key in self.keys[change.slots[change.slots < self.filled]].tolist():
            self._slots.pop(key, None)
        self.keys[change.slots], self.dense[change.slots] = change.keys, change.dense
        self._slots.update(zip(change.keys.tolist(), change.slots.tolist(), strict=True))
        for name, rows in change.rows.items():
            self.rows[name].put(change.slots.tolist(), rows)
        self.filled = change.filled

    def holds(self, keys: UInt64s) -> Bools:
        """[n] whether it holds each item."""
        return np.fromiter((key in self._slots for key in keys.tolist()), np.bool_, len(keys))

    def draw(self, count: int, first: int) -> tuple[Int64s, Bools]:
        """Different slots in use, for the batch at position `first`.

        Returns:
            slots: [count]; fewer items in use are repeated.
            drawn: [count] false for those that repeat.
        """
        if self.filled <= count:
            each = np.arange(count)
            return each % self.filled, each < self.filled
        order = mix(self._word(first, _DRAW) + np.arange(1, self.filled + 1, dtype=np.uint64) * GAMMA)
        return np.sort(np.argpartition(order, count - 1)[:count]), np.ones(count, np.bool_)

    def features(self, slots: Int64s, fields: Sequence[str]) -> Features:
        """The model's features of the items in `slots` [n]; those that the item tower does not read are empty."""
        places = slots.tolist()
        keys = {name: self.rows[name].at(places) if name in self.rows else no_keys(len(places)) for name in fields}
        dense = np.zeros((len(slots), self._inputs.all_dense), np.float32)
        dense[:, self._inputs.dense_columns] = self.dense[slots]
        return Features(keys, dense)

    def _slots_of(self, distinct: UInt64s, at: Int64s, first: int) -> tuple[dict[int, int], int]:
        """The slots of items [u] that occur first `at` [u] places in the batch at position `first`.

        Returns (by slot the number of its item, slots in use afterwards).
        """
        held, taken, filled = dict(self._slots), dict[int, int](), self.filled
        for item in np.argsort(at, kind="stable").tolist():
            key = int(distinct[item])
            slot = held.get(key)
            if slot is None and filled < len(self.keys):
                slot, filled = filled, filled + 1
            elif slot is None:
                word = self._word(first + int(at[item]), _REPLACE)
                slot = int(word[0] % np.uint64(len(self.keys)))
                del held[int(distinct[taken[slot]] if slot in taken else self.keys[slot])]
            held[key], taken[slot] = slot, item
        return taken, filled

    def _word(self, position: int, use: int) -> UInt64s:
        """[1] a random number of this seed."""
        return mix(np.array([self._seed ^ use], np.uint64) + np.array([position], np.uint64) * GAMMA)


_DRAW, _REPLACE = 0x1_0000_0000, 0x2_0000_0000
"""Keep two uses of a position apart; a seed has 32 bits."""
_OF_LISTS = {"offsets": np.int64, "weights": np.float32}
