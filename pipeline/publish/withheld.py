"""What is withheld from serving: rows by key, what sending each is worth, which of them to send.

The Python face of `native/withheld`. It remembers worth, never movements: what is withheld is row − served view.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import pipeline._native as _native
from pipeline.arrays.checks import require_array
from pipeline.errors import InputError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
UInt64s = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ScoredRows:
    """What sending m rows would be worth now.

    Attributes:
        keys: [m] uint64, ascending.
        worth: [m] float32.
        value: [m] float32.
        withheld: [m] bool, whether there is anything to send.
    """

    keys: UInt64s
    worth: Floats
    value: Floats
    withheld: Bools


@dataclass(frozen=True)
class Withheld:
    """The withheld rows of one field.

    Attributes:
        keys: [n] uint64, ascending.
        worth: [n] float32, what serving misses by not having the row; not negative.
        value: [n] float32, worth per byte that sending the row takes.

    Raises:
        InputError: a wrong dtype or shape, or keys that do not ascend.

    >>> held = Withheld(np.uint64([3, 5]), np.float32([1, 2]), np.float32([1, 2]))
    >>> held.without(np.uint64([5, 9])).keys.tolist()
    [3]
    """

    keys: UInt64s
    worth: Floats
    value: Floats

    def __post_init__(self) -> None:
        _require_keys(self.keys)
        require_array("worth", self.worth, np.float32, (len(self.keys),))
        require_array("value", self.value, np.float32, (len(self.keys),))

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def empty(cls) -> "Withheld":
        """No row."""
        return cls(*_room(0))

    @classmethod
    def concatenated(cls, parts: Sequence["Withheld"]) -> "Withheld":
        """All of `parts`, whose keys ascend from each to the next."""
        parts = [cls.empty(), *parts]
        return cls(
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.worth for part in parts]),
            np.concatenate([part.value for part in parts]),
        )

    def updated(self, anew: ScoredRows) -> "Withheld":
        """These rows, where those judged anew are replaced: withheld where `anew.withheld` says so, otherwise gone."""
        rows = Withheld(anew.keys, anew.worth, anew.value)
        require_array("withheld", anew.withheld, np.bool_, (len(rows),))
        room = _room(len(self) + len(rows))
        n = _native.judge_anew(
            self.keys, self.worth, self.value, rows.keys, rows.worth, rows.value, anew.withheld, *room
        )
        return _first(n, room)

    def without(self, keys: UInt64s) -> "Withheld":
        """All but `keys`, [m] uint64 ascending."""
        if not len(keys) or not len(self):
            return self
        nothing = np.zeros(len(keys), np.float32)
        return self.updated(ScoredRows(keys, nothing, nothing, np.zeros(len(keys), np.bool_)))

    def split(self, chosen: Bools) -> tuple[UInt64s, "Withheld"]:
        """The keys where `chosen`, [n] bool, says so, ascending; and the rows that are left."""
        require_array("chosen", chosen, np.bool_, (len(self),))
        count = int(np.count_nonzero(chosen))
        taken, left = np.empty(count, np.uint64), _room(len(self))
        n = _native.take_out(self.keys, self.worth, self.value, chosen, taken, *left)
        return taken, _first(n, left)


def select_rows(worth: Floats, value: Floats, share: float) -> Bools:
    """The rows that carry `share` of all worth in the fewest bytes: most worth per byte first, the last one included.

    Args:
        worth: [n] float32, not negative.
        value: [n] float32, worth per byte.
        share: in (0, 1].

    Returns:
        [n] bool; rows without worth are never chosen, ties go to the earlier row.

    >>> select_rows(np.float32([1, 8, 0, 1]), np.float32([1, 8, 0, 1]), 0.8).tolist()
    [False, True, False, False]

    Raises:
        InputError: a wrong dtype or shape, or a share outside (0, 1].
    """
    require_array("worth", worth, np.float32, ("n",))
    require_array("value", value, np.float32, (len(worth),))
    if not 0 < share <= 1:
        raise InputError(f"share: got {share!r}, wanted a number in (0, 1]")
    chosen = np.empty(len(worth), np.bool_)
    _native.select_worthiest(worth, value, float(share), chosen)
    return chosen


def _first(n: int, columns: tuple[UInt64s, Floats, Floats]) -> Withheld:
    keys, worth, value = columns
    return Withheld(keys[:n], worth[:n], value[:n])


def _room(n: int) -> tuple[UInt64s, Floats, Floats]:
    return np.empty(n, np.uint64), np.empty(n, np.float32), np.empty(n, np.float32)


def _require_keys(keys: UInt64s) -> None:
    require_array("keys", keys, np.uint64, ("n",))
    ascending = keys[1:] > keys[:-1]
    if not ascending.all():
        at = int(np.argmin(ascending))
        raise InputError(f"keys: got {keys[at + 1]} behind {keys[at]}, wanted them to ascend. hint: np.unique")
