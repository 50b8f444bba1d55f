"""The items by id, with their names and features: what is embedded by every version.

The id of an item is the hash of its name, so equal items have equal ids in every replica, whatever order they came in.
Two names can be made to have one hash: the first stays, and the second is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.arrays.keys import hash_column
from pipeline.arrays.types import Int64s, UInt64s
from pipeline.errors import InputError
from pipeline.features.plan import Features
from pipeline.recall.item_changes import ItemName

ITEMS_AT_ONCE = 2_048
"""Items whose rows are read together; a delta waits for them."""
_SEED = 0x17E4
_MOST_PIECES = 64
"""Pieces of changed items are merged into the others once there are more than these and twice the others."""


@dataclass(frozen=True)
class Described:
    """What is known of n items."""

    features: Features
    """Of n rows."""
    attributes: UInt64s
    """[n] bit a of an item that has attribute a."""

    @classmethod
    def concatenated(cls, parts: Sequence["Described"]) -> "Described":
        """The items of all `parts`, at least one, in order."""
        features = Features.concatenated([part.features for part in parts])
        return cls(features, np.concatenate([part.attributes for part in parts]))

    def take(self, rows: Int64s) -> "Described":
        """The items at `rows`, [k] int64, in their order."""
        return Described(self.features.take(rows), self.attributes[rows])


@dataclass(frozen=True)
class ItemPiece:
    """Some items."""

    ids: UInt64s
    """[n]"""
    items: Described
    """Of n items."""


@dataclass(frozen=True)
class CatalogueChange:
    """What becomes of some items; of each the last state."""

    removed: UInt64s
    """[m] ids, of items of the catalogue."""
    names: list[ItemName]
    """Of the n items that are new or replaced."""
    put: ItemPiece
    """They."""
    read: int
    """How many different items the changes named, also unknown and refused ones."""


class Catalogue:
    """Not thread-safe. An item that is put again replaces the one before."""

    def __init__(self) -> None:
        self.names: dict[int, ItemName] = {}
        """By id."""
        self._pieces: list[ItemPiece] = []
        self._merged = 0

    def put(self, names: Sequence[ItemName], items: Described) -> None:
        """Insert n items, each once. Raises InputError for two names with one id; nothing is changed."""
        ids = ids_of(names)
        new: dict[int, ItemName] = {}
        for id, name in zip(ids.tolist(), names, strict=True):
            other = self.names.get(id, new.setdefault(id, name))
            if other != name:
                raise InputError(f"items {name!r} and {other!r} have one id. hint: rename one of them")
        self._put(names, ItemPiece(ids, items))

    def apply(self, change: CatalogueChange) -> None:
        """Remove, insert and replace items."""
        for id in change.removed.tolist():
            del self.names[id]
        self._put(change.names, change.put)

    def _put(self, names: Sequence[ItemName], piece: ItemPiece) -> None:
        self.names |= zip(piece.ids.tolist(), names, strict=True)
        if names:
            self._pieces.append(piece)

    def pieces(self) -> Iterator[ItemPiece]:
        """All items, up to ITEMS_AT_ONCE at a time, by ascending id."""
        self._merge()
        yield from self._pieces

    def limit_pieces(self) -> None:
        """Merge what was put into the other items, if there is much of it. `names` stays as it is."""
        if len(self._pieces) > 2 * self._merged + _MOST_PIECES:
            self._merge()

    def __len__(self) -> int:
        return len(self.names)

    def _merge(self) -> None:
        """Keep the last state of every item, sorted by id."""
        if not self._pieces:
            return
        ids = np.concatenate([piece.ids for piece in self._pieces])
        unchanged = len(self._pieces) == self._merged and len(ids) == len(self.names)
        if unchanged:
            return
        items = Described.concatenated([piece.items for piece in self._pieces])
        newest = len(ids) - 1 - np.unique(ids[::-1], return_index=True)[1]
        known = np.fromiter(self.names, np.uint64, len(self.names))
        rows = newest[np.isin(ids[newest], known)].astype(np.int64)
        parts = [rows[first : first + ITEMS_AT_ONCE] for first in range(0, len(rows), ITEMS_AT_ONCE)]
        self._pieces = [ItemPiece(ids[part], items.take(part)) for part in parts]
        self._merged = len(self._pieces)


def ids_of(names: Sequence[ItemName]) -> UInt64s:
    """[n] uint64: the ids of items; the text 7 and the integer 7 are two names.

    >>> len({*ids_of([7, "7"]).tolist()})
    2
    """
    return hash_column(pa.array([repr(name) for name in names], pa.string()), _SEED)
