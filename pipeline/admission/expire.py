"""Expiry: rows unseen for too long are removed, then the least important rows over the memory budget.

`expired` is a pure plan; `Sweeper` stores when the next one is due. Time is log time: a replay removes the same rows.
"""

import struct
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import UInt64s
from pipeline.configuration.model.fields import Expiry
from pipeline.errors import DamagedError

_NEVER = -1
_STATE = struct.Struct("<8sq")
_MAGIC = b"SPRTSWP2"


class Rows(Protocol):
    """What expiry reads of a table."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""

    def keys(self) -> UInt64s:
        """[n] sorted."""

    def statistics(self, keys: UInt64s) -> npt.NDArray[Any]:
        """[n] structured, with fields last_seen_s (log time of the last update) and importance (as of then)."""


@dataclass(frozen=True)
class Expired:
    """Rows to remove, and why."""

    unseen: UInt64s
    """Not seen for the time to live."""
    over_budget: UInt64s
    """The least important of the rest, as many as exceed the budget."""

    @property
    def keys(self) -> UInt64s:
        return np.concatenate([self.unseen, self.over_budget])


class Sweeper:
    """Sweeps one table once per period of log time. Not thread-safe.

    Bytes: magic "SPRTSWP2" | period of the last sweep i64.
    """

    def __init__(self, config: Expiry, half_life_s: float) -> None:
        self._config, self._half_life_s = config, half_life_s
        self._period = _NEVER

    def due(self, at_s: int) -> bool:
        """Whether log time `at_s` is in a later period than the last sweep; period n starts at n × `sweep_every_s`."""
        limited = self._config.ttl_s is not None or self._config.budget_bytes is not None
        return limited and self._period_of(at_s) > self._period

    def sweep(self, rows: Rows, at_s: int) -> UInt64s:
        """Keys to remove at log time `at_s`, [r] uint64; none if no sweep is due. Call it at batch boundaries."""
        if not self.due(at_s):
            return np.empty(0, np.uint64)
        self._period = self._period_of(at_s)
        keys = rows.keys()
        return expired(keys, rows.statistics(keys), at_s, self._config, rows.row_bytes, self._half_life_s).keys

    def to_bytes(self) -> bytes:
        return _STATE.pack(_MAGIC, self._period)

    @classmethod
    def from_bytes(cls, config: Expiry, half_life_s: float, state: bytes) -> "Sweeper":
        """The sweeper of `to_bytes` under the same configuration. Raises DamagedError."""
        if len(state) != _STATE.size or not state.startswith(_MAGIC):
            raise DamagedError(
                f"expiry state is {state[:16]!r}, this release reads {_STATE.size} bytes that begin with {_MAGIC!r}. "
                "hint: restore a version that this release wrote"
            )
        sweeper = cls(config, half_life_s)
        _, sweeper._period = _STATE.unpack(state)
        return sweeper

    def _period_of(self, at_s: int) -> int:
        return int(at_s // self._config.sweep_every_s)


def expired(
    keys: UInt64s, statistics: npt.NDArray[Any], now_s: int, config: Expiry, row_bytes: int, half_life_s: float
) -> Expired:
    """What to remove at log time `now_s`.

    First rows unseen for `ttl_s` or longer; then, while rows × row bytes exceed the budget, the rows of least
    importance, decayed to now. Of equally important rows the smaller key is removed first.

    Args:
        keys: [n] uint64, distinct.
        statistics: [n] with fields last_seen_s and importance (as of last_seen_s).
        now_s: log time.
        config: time to live and budget; None means no limit.
        row_bytes: bytes of one row.
        half_life_s: of importance.

    >>> rows = np.array([(10, 1.0), (90, 3.0), (90, 2.0)], [("last_seen_s", "u4"), ("importance", "f4")])
    >>> plan = expired(np.array([7, 8, 9], np.uint64), rows, 100, Expiry(ttl_s=60, budget_bytes=50), 40, 1000.0)
    >>> plan.unseen.tolist(), plan.over_budget.tolist()
    ([7], [9])
    """
    age_s = now_s - statistics["last_seen_s"].astype(np.int64)
    unseen = age_s >= config.ttl_s if config.ttl_s is not None else np.zeros(len(keys), np.bool_)
    rest = np.flatnonzero(~unseen)
    surplus = 0 if config.budget_bytes is None else max(0, len(rest) - config.budget_bytes // row_bytes)
    if not surplus:
        return Expired(keys[unseen], np.empty(0, np.uint64))
    # In logarithms: after hundreds of half-lives importance itself would round to 0 and its order be lost.
    with np.errstate(divide="ignore"):
        worth = np.log2(statistics["importance"][rest].astype(np.float64)) - age_s[rest] / half_life_s
    worst = np.lexsort((keys[rest], worth))[:surplus]
    return Expired(keys[unseen], keys[rest[worst]])
