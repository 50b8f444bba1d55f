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

_NEWS = 16
"""So many times `most` are kept until they are sorted in; mostly somebody looks before."""
_KEPT = np.dtype(
    [("key", "<u8"), ("importance", "<f4"), ("last_seen_s", "<u4"), ("unsettled", "<f4"), ("there", np.bool_)]
)
_OF_A_ROW = ("importance", "last_seen_s", "unsettled")


class RowSample:
    """At most `most` rows of one field, none left out while there are fewer. Not thread-safe."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._rows = np.empty(0, _KEPT)
        self._news: list[npt.NDArray[np.void]] = []
        """What commits told since somebody looked, `_KEPT`, in their order."""
        self._bound = np.uint64(2**64 - 1)
        """Every row with a key up to here is in the sample."""

    def __len__(self) -> int:
        return len(self._settled())

    def apply(self, keys: UInt64s, rows: Rows, removed: UInt64s) -> None:
        """Follow one commit.

        Args:
            keys: [n] uint64 ascending, keys whose row is new or changed.
            rows: [n] their rows.
            removed: [r] uint64 ascending, keys that have no row any more.
        """
        n, r = (int(np.searchsorted(told, self._bound, side="right")) for told in (keys, removed))
        news = np.zeros(n + r, _KEPT)
        news["key"][:n], news["key"][n:], news["there"][:n] = keys[:n], removed[:r], True
        for name in _OF_A_ROW:
            news[name][:n] = rows[name][:n]
        self._news.append(news)
        if sum(map(len, self._news)) > _NEWS * self._most:
            self._settled()

    def importance(self, at_s: int, half_life_s: float) -> Float64s:
        """[len] the rows' importance, decayed to log time `at_s`."""
        rows = self._settled()
        return decayed(rows["importance"], rows["last_seen_s"], at_s, half_life_s)

    def convergence(self) -> Float64s:
        """[len] the rows' convergence."""
        return convergence(self._settled()["unsettled"]).astype(np.float64)

    def _settled(self) -> npt.NDArray[np.void]:
        """[len] `_KEPT`, by key: of each key what was told last, the smallest keys of those that are there."""
        if self._news:
            told = np.concatenate([self._rows, *self._news])[::-1]
            newest = told[np.unique(told["key"], return_index=True)[1]]
            there = newest[newest["there"]]
            if len(there) > self._most:
                self._bound = there["key"][self._most - 1]
            self._rows, self._news = there[: self._most], []
        return self._rows


def quantiles(values: Float64s, at: Sequence[float]) -> dict[float, float]:
    """The values at some quantiles; nothing where there are no values.

    >>> quantiles(np.array([1.0, 2.0, 3.0]), [0.5, 1.0])
    {0.5: 2.0, 1.0: 3.0}
    """
    return dict(zip(at, np.quantile(values, at).tolist(), strict=True)) if len(values) else {}
