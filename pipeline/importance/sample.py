"""A sample of one table's rows, updated by each commit: how important and how converged rows are.

Keys are hashes, so the rows with keys below a bound are a uniform sample. A commit lists changed keys in ascending
order: those below the bound are first, and the cost of an update does not depend on the size of the table.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Float64s, UInt64s
from pipeline.importance.convergence import convergence
from pipeline.importance.score import decayed

Rows = npt.NDArray[Any]
"""[n] structured, with `importance`, `last_seen_s` and `unsettled`."""

MAX_ROWS = 2_048

_PENDING_FACTOR = 16
"""Pending changes are merged at so many times `max_rows`; mostly a read merges them before."""
_ENTRY = np.dtype(
    [("key", "<u8"), ("importance", "<f4"), ("last_seen_s", "<u4"), ("unsettled", "<f4"), ("present", np.bool_)]
)
_STATISTICS = ("importance", "last_seen_s", "unsettled")


class RowSample:
    """At most `max_rows` rows of one table, all of them as long as there are no more. Not thread-safe."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._rows = np.empty(0, _ENTRY)
        self._pending: list[npt.NDArray[np.void]] = []
        """Changes since the last merge, `_ENTRY`, in the order of the commits."""
        self._bound = np.uint64(2**64 - 1)
        """Every row with a key up to here is in the sample."""

    def __len__(self) -> int:
        return len(self._merge())

    def apply(self, keys: UInt64s, rows: Rows, removed: UInt64s) -> None:
        """Apply one commit.

        Args:
            keys: [n] uint64 ascending, keys whose row is new or changed.
            rows: [n] their rows.
            removed: [r] uint64 ascending, keys that no longer have a row.
        """
        n, r = (int(np.searchsorted(changed, self._bound, side="right")) for changed in (keys, removed))
        changes = np.zeros(n + r, _ENTRY)
        changes["key"][:n], changes["key"][n:], changes["present"][:n] = keys[:n], removed[:r], True
        for name in _STATISTICS:
            changes[name][:n] = rows[name][:n]
        self._pending.append(changes)
        if sum(map(len, self._pending)) > _PENDING_FACTOR * self._max_rows:
            self._merge()

    def importance(self, at_s: int, half_life_s: float) -> Float64s:
        """[len] the rows' importance, decayed to log time `at_s`."""
        rows = self._merge()
        return decayed(rows["importance"], rows["last_seen_s"], at_s, half_life_s)

    def convergence(self) -> Float64s:
        """[len] the rows' convergence."""
        return convergence(self._merge()["unsettled"]).astype(np.float64)

    def _merge(self) -> npt.NDArray[np.void]:
        """[len] `_ENTRY`, by key: the last entry of each key, without removed ones, cut to the smallest keys."""
        if self._pending:
            entries = np.concatenate([self._rows, *self._pending])[::-1]
            last = entries[np.unique(entries["key"], return_index=True)[1]]
            present = last[last["present"]]
            if len(present) > self._max_rows:
                self._bound = present["key"][self._max_rows - 1]
            self._rows, self._pending = present[: self._max_rows], []
        return self._rows


def quantiles(values: Float64s, at: Sequence[float]) -> dict[float, float]:
    """The values at some quantiles; empty if there are no values.

    >>> quantiles(np.array([1.0, 2.0, 3.0]), [0.5, 1.0])
    {0.5: 2.0, 1.0: 3.0}
    """
    return dict(zip(at, np.quantile(values, at).tolist(), strict=True)) if len(values) else {}
