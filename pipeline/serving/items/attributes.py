"""Attributes of items: conditions over their raw columns, by name, and which items a request may find by them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import ARROW_TYPES
from pipeline.arrays.types import UInt64s
from pipeline.errors import ConfigError, InputError
from pipeline.quarantine.predicate import Predicate
from pipeline.recall.item_changes import ItemName
from pipeline.recall.item_filter import ItemFilter
from pipeline.serving.items.catalogue import ids_of

_SETS = ("all", "any", "none")


@dataclass(frozen=True)
class Allowed:
    """The items that a request may find; by default all."""

    filter: ItemFilter = field(default_factory=ItemFilter)
    excluded: UInt64s = field(default_factory=lambda: np.empty(0, np.uint64))
    """[m] ids of items that it may not find."""


class Attributes:
    """Immutable, so thread-safe."""

    def __init__(self, conditions: Mapping[str, str], types: Mapping[str, str]) -> None:
        """`conditions` by name, over impression columns of these types. Raises ConfigError for a wrong condition."""
        schema = pa.schema([(name, ARROW_TYPES[kind]) for name, kind in types.items()])
        self._bits = {name: bit for bit, name in enumerate(conditions)}
        try:
            self._predicates = [Predicate(text, schema) for text in conditions.values()]
        except InputError as failure:
            raise ConfigError(f"recall.attributes: {failure}") from None

    @property
    def columns(self) -> frozenset[str]:
        """The raw columns that the conditions read."""
        return frozenset(column for predicate in self._predicates for column in predicate.columns)

    def __len__(self) -> int:
        return len(self._bits)

    def of(self, items: pa.RecordBatch) -> UInt64s:
        """[n] uint64: bit i of an item for which condition i is true."""
        found = np.zeros(items.num_rows, np.uint64)
        for bit, predicate in enumerate(self._predicates):
            found |= predicate.matches(items).astype(np.uint64) << np.uint64(bit)
        return found

    def allowed(self, filter: Any, exclude: Any) -> Allowed:
        """What a request may find, by `filter`, an object of lists of attributes, and `exclude`, a list of items.

        Either may be None. Raises InputError.
        """
        excluded = [] if exclude is None else _list_of("exclude", exclude)
        if wrong := [name for name in excluded if not isinstance(name, ItemName) or isinstance(name, bool)]:
            raise InputError(f"exclude: got {wrong[0]!r}, wanted names of items: texts or integers")
        return Allowed(self._filter(filter), ids_of(excluded) if excluded else np.empty(0, np.uint64))

    def _filter(self, given: Any) -> ItemFilter:
        if given is None:
            return ItemFilter()
        if not isinstance(given, dict) or not given.keys() <= {*_SETS}:
            raise InputError(f"filter: got {given!r}, wanted an object of lists: {', '.join(_SETS)}")
        sets = [frozenset(self._bit_of(name) for name in _list_of(f"filter.{s}", given.get(s, []))) for s in _SETS]
        return ItemFilter(*sets)

    def _bit_of(self, name: Any) -> int:
        if not isinstance(name, str) or name not in self._bits:
            known = ", ".join(self._bits) or "none. hint: declare [recall.attributes]"
            raise InputError(f"filter: attribute {name!r} does not exist. known: {known}")
        return self._bits[name]


def _list_of(what: str, given: Any) -> list[Any]:
    if not isinstance(given, list):
        raise InputError(f"{what}: got {type(given).__name__}, wanted a list")
    return given
