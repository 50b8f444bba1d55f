"""Decides which rows go: those unseen for too long, then the least important ones over the memory budget.

`expired` is a pure plan; `Sweeper` remembers when to look next. Time is the log's, so a replay removes the same rows.
"""

import struct
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.arrays.block import UInt64s
from pipeline.configuration.fields import Expiry
from pipeline.errors import DamagedError

_NEVER = -1
_STATE = struct.Struct("<8sq")
_MAGIC = b"FRSHSWP1"


class Rows(Protocol):
    """What expiry reads of a table."""

    @property
    def row_bytes(self) -> int:
        """Bytes one row takes."""

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
    """The least important of the rest, as many as the budget asks for."""

    @property
    def keys(self) -> UInt64s:
        return np.concatenate([self.unseen, self.over_budget])


class Sweeper:
    """When one field is swept next. Not thread-safe.

    Bytes: magic "FRSHSWP1" | period of the last sweep i64.
    """

    def __init__(self, config: Expiry, half_life_s: float) -> None:
        self._config, self._half_life_s = config, half_life_s
        self._period = _NEVER

    def due(self, at_s: int) -> bool:
        """Whether log time `at_s` lies in a later period than the last sweep; periods begin at multiples of theirs."""
        wanted = self._config.ttl_s is not None or self._config.budget_bytes is not None
        return wanted and self._period_of(at_s) > self._period

    def sweep(self, rows: Rows, at_s: int) -> UInt64s:
        """Keys to remove at log time `at_s`, [r] uint64; none where no sweep is due. Call it at batch boundaries."""
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
            raise DamagedError(f"expiry state is {state[:16]!r}, wanted {_STATE.size} bytes from {_MAGIC!r} on")
        sweeper = cls(config, half_life_s)
        _, sweeper._period = _STATE.unpack(state)
        return sweeper

    def _period_of(self, at_s: int) -> int:
        return int(at_s // self._config.sweep_every_s)


def expired(
    keys: UInt64s, statistics: npt.NDArray[Any], now_s: int, config: Expiry, row_bytes: int, half_life_s: float
) -> Expired:
    """What to remove at log time `now_s`.

    Rows unseen for `ttl_s` or longer go; then, while rows × row bytes exceed the budget, those of least importance,
    decayed to now. Of equally important rows the smaller key goes first.

    Args:
        keys: [n] uint64, distinct.
        statistics: [n] with fields last_seen_s and importance (as of last_seen_s).
        now_s: the log's time.
        config: time to live and budget; None is no limit.
        row_bytes: bytes of one row.
        half_life_s: of importance.

    >>> rows = np.array([(10, 1.0), (90, 3.0), (90, 2.0)], [("last_seen_s", "u4"), ("importance", "f4")])
    >>> gone = expired(np.array([7, 8, 9], np.uint64), rows, 100, Expiry(ttl_s=60, budget_bytes=50), 40, 1000.0)
    >>> gone.unseen.tolist(), gone.over_budget.tolist()
    ([7], [9])
    """
    age_s = now_s - statistics["last_seen_s"].astype(np.int64)
    unseen = age_s >= config.ttl_s if config.ttl_s is not None else np.zeros(len(keys), np.bool_)
    left = np.flatnonzero(~unseen)
    surplus = 0 if config.budget_bytes is None else max(0, len(left) - config.budget_bytes // row_bytes)
    if not surplus:
        return Expired(keys[unseen], np.empty(0, np.uint64))
    # In logarithms: importance unseen for hundreds of half-lives would be 0 and its order lost.
    with np.errstate(divide="ignore"):
        worth = np.log2(statistics["importance"][left].astype(np.float64)) - age_s[left] / half_life_s
    worst = np.lexsort((keys[left], worth))[:surplus]
    return Expired(keys[unseen], keys[left[worst]])
