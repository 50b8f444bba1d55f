"""A sample of one field's rows, kept up by what commits tell: how important and how settled rows are, at a glance.

Keys are hashes, so the rows whose keys lie below a bound are a uniform sample. Commits tell changed keys in ascending
order: those below the bound are their beginning, and keeping the sample costs next to nothing however large the table.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.importance.convergence import convergence
from pipeline.importance.score import decayed

Float64s = npt.NDArray[np.float64]
UInt64s = npt.NDArray[np.uint64]
Rows = npt.NDArray[Any]
"""[n] structured, with `importance`, `last_seen_s` and `unsettled`."""

MOST = 2_048

_KEPT = np.dtype([("importance", "<f4"), ("last_seen_s", "<u4"), ("unsettled", "<f4")])


class RowSample:
    """At most `most` rows of one field, none left out while there are fewer. Not thread-safe."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._keys, self._rows = np.empty(0, np.uint64), np.empty(0, _KEPT)
        self._bound = np.uint64(2**64 - 1)
        """Every row with a key up to here is in the sample."""

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, keys: UInt64s, rows: Rows, removed: UInt64s) -> None:
        """Follow one commit.

        Args:
            keys: [n] uint64 ascending, keys whose row is new or changed.
            rows: [n] their rows.
            removed: [r] uint64, keys that have no row any more.
        """
        end = int(np.searchsorted(keys, self._bound, side="right"))
        news = np.empty(end, _KEPT)
        for name in _KEPT.names or ():
            news[name] = rows[name][:end]
        stay = ~(np.isin(self._keys, keys[:end]) | np.isin(self._keys, removed))
        together = np.concatenate([self._keys[stay], keys[:end]])
        order = np.argsort(together)[: self._most]
        if len(together) > self._most:
            self._bound = together[order[-1]]
        self._keys, self._rows = together[order], np.concatenate([self._rows[stay], news])[order]

    def importance(self, at_s: int, half_life_s: float) -> Float64s:
        """[len] the rows' importance, decayed to log time `at_s`."""
        return decayed(self._rows["importance"], self._rows["last_seen_s"], at_s, half_life_s)

    def convergence(self) -> Float64s:
        """[len] the rows' convergence."""
        return convergence(self._rows["unsettled"]).astype(np.float64)


def quantiles(values: Float64s, at: Sequence[float]) -> dict[float, float]:
    """The values at some quantiles; nothing where there are no values.

    >>> quantiles(np.array([1.0, 2.0, 3.0]), [0.5, 1.0])
    {0.5: 2.0, 1.0: 3.0}
    """
    return dict(zip(at, np.quantile(values, at).tolist(), strict=True)) if len(values) else {}
