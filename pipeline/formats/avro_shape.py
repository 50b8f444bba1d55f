"""Refuses Avro schemas of which a few bytes decode to any number of values, or to values nested without end.

Any process may register a writer schema. A null and a record of nulls take no bytes: an array of them holds 2^62 items
in ten bytes, and 40 records that each hold the next one twice a million million. fastavro decodes on the C stack: a
record that contains itself ends the process.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

MAX_EMPTY = 64
"""Values that take no bytes, in one value of a record outside of its unions, arrays and maps."""
MAX_DEPTH = 64
"""Levels of records, unions, arrays and maps."""


class _Shape(NamedTuple):
    """Values without bytes in a value, whether all of it takes no bytes, and its levels."""

    empties: int
    empty: bool
    depth: int


def check_shape(parsed: Any, named: Mapping[str, Any]) -> None:
    """Raise ValueError for a schema whose values are not bounded by their bytes, or nested too deeply.

    Args:
        parsed: as fastavro parses it; references are full names.
        named: its named types.
    """
    _Shapes(named).of(parsed)


class _Shapes:
    """The shapes of types, each named one once."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._known: dict[str, _Shape] = {}
        self._open: set[str] = set()

    def of(self, kind: Any) -> _Shape:
        """The shape of a type. Raises ValueError."""
        if isinstance(kind, list):  # the number of its branch takes a byte
            return self._around(self.of(branch) for branch in kind)
        if isinstance(kind, str):
            return self._of_named(kind) if kind in self._named else _plain(kind == "null")
        if "fields" in kind:
            return self._of_named(kind["name"])
        if kind["type"] == "array":
            items = self.of(kind["items"])
            if items.empty:
                raise ValueError("items of an array that take no bytes")
            return self._around([items])
        if kind["type"] == "map":  # a key takes a byte
            return self._around([self.of(kind["values"])])
        return _plain(kind["type"] == "null" or (kind["type"] == "fixed" and kind["size"] == 0))

    def _of_named(self, name: str) -> _Shape:
        if name in self._open:
            raise ValueError(f"record {name} contains itself")
        if name not in self._known:
            self._open.add(name)
            self._known[name] = self._of_definition(self._named[name])
            self._open.remove(name)
        return self._known[name]

    def _of_definition(self, kind: Any) -> _Shape:
        if "fields" not in kind:
            return self.of(kind)
        parts = [self.of(field["type"]) for field in kind["fields"]]
        empty = all(part.empty for part in parts)
        empties = int(empty) + sum(part.empties for part in parts)
        if empties > MAX_EMPTY:
            raise ValueError(f"more than {MAX_EMPTY} values that take no bytes")
        return _Shape(empties, empty, self._around(parts).depth)

    @staticmethod
    def _around(parts: Iterable[_Shape]) -> _Shape:
        depth = 1 + max((part.depth for part in parts), default=0)
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels")
        return _Shape(0, False, depth)


def _plain(empty: bool) -> _Shape:
    return _Shape(int(empty), empty, 0)
