"""The inputs of the item tower as a reservoir holds them: keys of fields, and dense columns."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Float32s, Int64s, UInt64s
from pipeline.configuration.config import Config
from pipeline.configuration.model.lists import mask_name
from pipeline.features.plan import FieldKeys
from pipeline.features.weights import no_weights


@dataclass(frozen=True)
class ItemInputs:
    """Which inputs of the model the item tower reads.

    Attributes:
        fields: names of its fields.
        weighted: those of them with weights of elements.
        dense_columns: [d] the places of its dense numbers among all of them.
        all_dense: number of all dense columns.
    """

    fields: tuple[str, ...]
    weighted: frozenset[str]
    dense_columns: Int64s
    all_dense: int

    @classmethod
    def of(cls, config: Config, inputs: Collection[str]) -> "ItemInputs":
        """Those of a model whose item tower depends on the Keras inputs `inputs`."""
        fields = [field for field in config.fields if {field.name, mask_name(field.name)} & set(inputs)]
        owners = np.array([number.name for number in config.dense for _ in range(number.width)])
        columns = np.flatnonzero(np.isin(owners, sorted(inputs))) if len(owners) else np.zeros(0, np.int64)
        weighted = frozenset(field.name for field in fields if field.weights is not None)
        return cls(tuple(field.name for field in fields), weighted, columns, config.dense_columns)


class ItemRows:
    """One field's keys of n rows, in as many arrays: lists differ in length. Not thread-safe.

    Attributes:
        keys: n arrays uint64.
        weights: n arrays float32, or none.
    """

    def __init__(self, keys: list[UInt64s], weights: list[Float32s]) -> None:
        self.keys, self.weights = keys, weights

    @classmethod
    def empty(cls, rows: int, weighted: bool) -> "ItemRows":
        """Rows without keys."""
        return cls([_NO_KEYS] * rows, [no_weights()] * rows if weighted else [])

    @classmethod
    def of(cls, found: FieldKeys, rows: Iterable[int], weighted: bool) -> "ItemRows":
        """Copies of some rows of a batch."""
        parts = [slice(found.offsets[row], found.offsets[row + 1]) for row in rows]
        return cls([found.keys[p].copy() for p in parts], [found.weights[p].copy() for p in parts] if weighted else [])

    def put(self, places: Iterable[int], rows: "ItemRows") -> None:
        """Replace the rows at `places` by `rows`, in order."""
        for i, place in enumerate(places):
            self.keys[place] = rows.keys[i]
            if self.weights:
                self.weights[place] = rows.weights[i]

    def at(self, places: Iterable[int]) -> FieldKeys:
        """The keys of the rows at `places`."""
        chosen = list(places)
        keys = [self.keys[place] for place in chosen]
        weights = np.concatenate([no_weights(), *(self.weights[p] for p in chosen if self.weights)])
        return FieldKeys(np.concatenate([_NO_KEYS, *keys]), _offsets(len(each) for each in keys), weights)

    @classmethod
    def from_columns(cls, found: FieldKeys, rows: int, weighted: bool) -> "ItemRows":
        """The rows of `at`, followed by empty ones up to `rows`."""
        held = cls.of(found, range(len(found.offsets) - 1), weighted)
        rest = cls.empty(rows - len(held.keys), weighted)
        return cls(held.keys + rest.keys, held.weights + rest.weights)


def no_keys(rows: int) -> FieldKeys:
    """Of a field that the item tower does not read."""
    return FieldKeys(_NO_KEYS, np.zeros(rows + 1, np.int64))


def _offsets(lengths: Iterable[int]) -> Int64s:
    return np.cumsum([0, *lengths], dtype=np.int64)


_NO_KEYS: UInt64s = np.empty(0, np.uint64)
