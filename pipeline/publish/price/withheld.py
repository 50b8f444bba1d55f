"""The rows withheld from serving: their keys and what sending each is worth.

Wraps `native/serving/withheld`. It stores worth, not movements: what is withheld is row − served view. Worth is as of
the last occurrence of a row and decays from then on, as the curvature does that it comes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import Bools, Float32s, UInt32s, UInt64s
from pipeline.errors import InputError


@dataclass(frozen=True)
class ScoredRows:
    """The current worth of sending m rows; see `Withheld`.

    Attributes:
        keys: [m] uint64, ascending.
        worth: [m] float32.
        worth_per_byte: [m] float32.
        seen_s: [m] uint32.
        withheld: [m] bool, whether sending the row would improve its served value.
    """

    keys: UInt64s
    worth: Float32s
    worth_per_byte: Float32s
    seen_s: UInt32s
    withheld: Bools


@dataclass(frozen=True)
class Withheld:
    """The withheld rows of one table.

    Attributes:
        keys: [n] uint64, ascending.
        worth: [n] float32, what serving loses without the row; not negative.
        worth_per_byte: [n] float32, worth per byte of sending the row.
        seen_s: [n] uint32, log time that worth is as of, s since 1970.

    Raises:
        InputError: a wrong dtype or shape, or keys that do not ascend.

    >>> withheld = Withheld(np.uint64([3, 5]), np.float32([1, 2]), np.float32([1, 2]), np.uint32([0, 0]))
    >>> withheld.without(np.uint64([5, 9])).keys.tolist()
    [3]
    """

    keys: UInt64s
    worth: Float32s
    worth_per_byte: Float32s
    seen_s: UInt32s

    def __post_init__(self) -> None:
        _require_keys(self.keys)
        require_array("worth", self.worth, np.float32, (len(self.keys),))
        require_array("worth_per_byte", self.worth_per_byte, np.float32, (len(self.keys),))
        require_array("seen_s", self.seen_s, np.uint32, (len(self.keys),))

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def empty(cls) -> "Withheld":
        """No rows."""
        return cls(*_columns(0))

    @classmethod
    def concatenated(cls, parts: Sequence["Withheld"]) -> "Withheld":
        """All of `parts`, whose keys ascend from each to the next."""
        parts = [cls.empty(), *parts]
        return cls(
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.worth for part in parts]),
            np.concatenate([part.worth_per_byte for part in parts]),
            np.concatenate([part.seen_s for part in parts]),
        )

    def worth_at(self, at_s: int, half_life_s: float) -> tuple[Float32s, Float32s]:
        """(worth [n], worth per byte [n]) as of log time `at_s`, halved for each half-life since `seen_s`."""
        return decayed(self.worth, self.worth_per_byte, self.seen_s, at_s, half_life_s)

    def updated(self, scored: ScoredRows) -> "Withheld":
        """These rows with the scored ones replaced, or removed if `scored.withheld` is false."""
        rows = Withheld(scored.keys, scored.worth, scored.worth_per_byte, scored.seen_s)
        require_array("withheld", scored.withheld, np.bool_, (len(rows),))
        columns = _columns(len(self) + len(rows))
        n = _native.merge_scored(*self._all(), *rows._all(), scored.withheld, *columns)
        return _first(n, columns)

    def without(self, keys: UInt64s) -> "Withheld":
        """All rows except those of `keys`, [m] uint64 ascending."""
        if not len(keys) or not len(self):
            return self
        zeros = np.zeros(len(keys), np.float32)
        return self.updated(
            ScoredRows(keys, zeros, zeros, np.zeros(len(keys), np.uint32), np.zeros(len(keys), np.bool_))
        )

    def split(self, chosen: Bools) -> tuple[UInt64s, "Withheld"]:
        """The keys of the rows in `chosen`, [n] bool, ascending; and the remaining rows."""
        require_array("chosen", chosen, np.bool_, (len(self),))
        count = int(np.count_nonzero(chosen))
        keys, remaining = np.empty(count, np.uint64), _columns(len(self))
        n = _native.split_chosen(*self._all(), chosen, keys, *remaining)
        return keys, _first(n, remaining)

    def _all(self) -> "_Columns":
        return self.keys, self.worth, self.worth_per_byte, self.seen_s


def decayed(
    one: Float32s, other: Float32s, seen_s: UInt32s, at_s: int, half_life_s: float
) -> tuple[Float32s, Float32s]:
    """Two columns of losses, [n] float32 each, as of log time `at_s`: halved for each half-life since `seen_s`, [n].

    >>> [each.tolist() for each in decayed(np.float32([8]), np.float32([2]), np.uint32([100]), 110, half_life_s=10)]
    [[4.0], [1.0]]

    Raises InputError: a wrong dtype or shape, or a time that is not one of 32 bits.
    """
    require_array("seen_s", seen_s, np.uint32, ("n",))
    for name, column in (("one", one), ("other", other)):
        require_array(name, column, np.float32, (len(seen_s),))
    require_integer("at_s, seconds since 1970", at_s, 0, 2**32 - 1)
    now = np.empty(len(seen_s), np.float32), np.empty(len(seen_s), np.float32)
    _native.decay_worth(one, other, seen_s, int(at_s), float(half_life_s), *now)
    return now


_Columns = tuple[UInt64s, Float32s, Float32s, UInt32s]


def _first(n: int, columns: _Columns) -> Withheld:
    keys, worth, worth_per_byte, seen_s = columns
    return Withheld(keys[:n], worth[:n], worth_per_byte[:n], seen_s[:n])


def _columns(n: int) -> _Columns:
    return np.empty(n, np.uint64), np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.uint32)


def _require_keys(keys: UInt64s) -> None:
    require_array("keys", keys, np.uint64, ("n",))
    ascending = keys[1:] > keys[:-1]
    if not ascending.all():
        at = int(np.argmin(ascending))
        raise InputError(f"keys: got {keys[at + 1]} after {keys[at]}, wanted ascending keys. hint: np.unique")
