"""The rows withheld from serving: their keys, what sending each is worth, and the selection of those to send.

Wraps `native/serving/withheld`. It stores worth, not movements: what is withheld is row − served view.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array
from pipeline.arrays.types import Bools, Float32s, UInt64s
from pipeline.errors import InputError


@dataclass(frozen=True)
class ScoredRows:
    """The current worth of sending m rows; see `Withheld`.

    Attributes:
        keys: [m] uint64, ascending.
        worth: [m] float32.
        worth_per_byte: [m] float32.
        withheld: [m] bool, whether the row differs from its served value.
    """

    keys: UInt64s
    worth: Float32s
    worth_per_byte: Float32s
    withheld: Bools


@dataclass(frozen=True)
class Withheld:
    """The withheld rows of one table.

    Attributes:
        keys: [n] uint64, ascending.
        worth: [n] float32, what serving loses without the row; not negative.
        worth_per_byte: [n] float32, worth per byte of sending the row.

    Raises:
        InputError: a wrong dtype or shape, or keys that do not ascend.

    >>> withheld = Withheld(np.uint64([3, 5]), np.float32([1, 2]), np.float32([1, 2]))
    >>> withheld.without(np.uint64([5, 9])).keys.tolist()
    [3]
    """

    keys: UInt64s
    worth: Float32s
    worth_per_byte: Float32s

    def __post_init__(self) -> None:
        _require_keys(self.keys)
        require_array("worth", self.worth, np.float32, (len(self.keys),))
        require_array("worth_per_byte", self.worth_per_byte, np.float32, (len(self.keys),))

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
        )

    def updated(self, scored: ScoredRows) -> "Withheld":
        """These rows with the scored ones replaced, or removed if `scored.withheld` is false."""
        rows = Withheld(scored.keys, scored.worth, scored.worth_per_byte)
        require_array("withheld", scored.withheld, np.bool_, (len(rows),))
        columns = _columns(len(self) + len(rows))
        n = _native.merge_scored(
            self.keys, self.worth, self.worth_per_byte, rows.keys, rows.worth, rows.worth_per_byte, scored.withheld,
            *columns,
        )  # fmt: skip
        return _first(n, columns)

    def without(self, keys: UInt64s) -> "Withheld":
        """All rows except those of `keys`, [m] uint64 ascending."""
        if not len(keys) or not len(self):
            return self
        zeros = np.zeros(len(keys), np.float32)
        return self.updated(ScoredRows(keys, zeros, zeros, np.zeros(len(keys), np.bool_)))

    def split(self, chosen: Bools) -> tuple[UInt64s, "Withheld"]:
        """The keys of the rows in `chosen`, [n] bool, ascending; and the remaining rows."""
        require_array("chosen", chosen, np.bool_, (len(self),))
        count = int(np.count_nonzero(chosen))
        keys, remaining = np.empty(count, np.uint64), _columns(len(self))
        n = _native.split_chosen(self.keys, self.worth, self.worth_per_byte, chosen, keys, *remaining)
        return keys, _first(n, remaining)


def select_rows(worth: Float32s, worth_per_byte: Float32s, share: float) -> Bools:
    """Select the rows that hold `share` of all worth in the fewest bytes, in descending order of worth per byte.

    Args:
        worth: [n] float32, not negative.
        worth_per_byte: [n] float32.
        share: in (0, 1].

    Returns:
        [n] bool. The row that reaches the share is included, rows without worth never are; of rows with equal worth per
        byte the first is selected.

    >>> select_rows(np.float32([1, 8, 0, 1]), np.float32([1, 8, 0, 1]), 0.8).tolist()
    [False, True, False, False]

    Raises:
        InputError: a wrong dtype or shape, or a share outside (0, 1].
    """
    require_array("worth", worth, np.float32, ("n",))
    require_array("worth_per_byte", worth_per_byte, np.float32, (len(worth),))
    if not 0 < share <= 1:
        raise InputError(f"share: got {share!r}, wanted a number in (0, 1]")
    chosen = np.empty(len(worth), np.bool_)
    _native.select_worthiest(worth, worth_per_byte, float(share), chosen)
    return chosen


def _first(n: int, columns: tuple[UInt64s, Float32s, Float32s]) -> Withheld:
    keys, worth, worth_per_byte = columns
    return Withheld(keys[:n], worth[:n], worth_per_byte[:n])


def _columns(n: int) -> tuple[UInt64s, Float32s, Float32s]:
    return np.empty(n, np.uint64), np.empty(n, np.float32), np.empty(n, np.float32)


def _require_keys(keys: UInt64s) -> None:
    require_array("keys", keys, np.uint64, ("n",))
    ascending = keys[1:] > keys[:-1]
    if not ascending.all():
        at = int(np.argmin(ascending))
        raise InputError(f"keys: got {keys[at + 1]} after {keys[at]}, wanted ascending keys. hint: np.unique")
