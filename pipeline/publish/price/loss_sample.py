"""A sample of one table's rows: what serving loses by each, and the price at which that is the loss allowed.

Keys are hashes, so the rows with keys below a bound are a uniform sample; in a commit's rows, which ascend by key, it
comes first. With steps by one price no row loses much more than another: some ten thousand rows give the sum over all.
Losses are as of the last occurrence of a row and decay from then on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.ascending import find_keys
from pipeline.arrays.types import Float64s, UInt64s
from pipeline.publish.price.priced_rows import RowScores
from pipeline.publish.price.withheld import decayed

Rows = npt.NDArray[Any]

MAX_ROWS = 65_536
"""Of all tables; with more, every other row is dropped."""
_ROW_BYTES, _WEIGHT_BYTES = 6.0, 1.0
_ENTRY = np.dtype([("key", "<u8"), ("missing", "<f4"), ("error", "<f4"), ("seen_s", "<u4")])


@dataclass(frozen=True)
class LossSample:
    """Rows with keys below a bound.

    Attributes:
        entries: [n] structured, keys ascending: loss if serving does not hold the row (`missing`), loss by what serving
            holds (`error`), log time of both, s since 1970 (`seen_s`).
    """

    entries: Rows

    @classmethod
    def empty(cls) -> "LossSample":
        """No rows."""
        return cls(np.empty(0, _ENTRY))

    @classmethod
    def of(cls, keys: UInt64s, rows: Rows, scores: RowScores, halvings: int) -> "LossSample":
        """Those of n scored rows, keys ascending, that are in a sample of one in 2^`halvings`."""
        n = sampled_rows(keys, halvings)
        entries = np.empty(n, _ENTRY)
        entries["key"], entries["seen_s"] = keys[:n], rows["last_seen_s"][:n]
        entries["missing"], entries["error"] = scores.missing[:n], scores.error[:n]
        return cls(entries)

    def __len__(self) -> int:
        return len(self.entries)

    def updated(self, changed: "LossSample") -> "LossSample":
        """These rows with those of `changed` replaced or added."""
        entries = np.concatenate([self.without(changed.entries["key"]).entries, changed.entries])
        return LossSample(entries[np.argsort(entries["key"], kind="stable")])

    def without(self, keys: UInt64s) -> "LossSample":
        """All rows except those of `keys`, [m] uint64 ascending."""
        return LossSample(self.entries[~find_keys(self.entries["key"], keys)[1]]) if len(keys) else self

    def halved(self, halvings: int) -> "LossSample":
        """The rows that are in a sample of one in 2^`halvings`."""
        return LossSample(self.entries[: sampled_rows(self.entries["key"], halvings)])

    def losses(self, at_s: int, half_life_s: float) -> tuple[Float64s, Float64s]:
        """(loss of each row if serving does not hold it [n], by what serving holds [n]), decayed to log time `at_s`."""
        missing, error, seen_s = (np.ascontiguousarray(self.entries[name]) for name in ("missing", "error", "seen_s"))
        missing, error = decayed(missing, error, seen_s, at_s, half_life_s)
        return missing.astype(np.float64), error.astype(np.float64)


def sampled_rows(keys: UInt64s, halvings: int) -> int:
    """How many of `keys`, [n] uint64 ascending, are in a sample of one in 2^`halvings`: so many of the first.

    >>> sampled_rows(np.uint64([1, 2**62, 2**63]), 1)
    2
    """
    return len(keys) if halvings == 0 else int(np.searchsorted(keys, np.uint64(1 << (64 - halvings))))


def row_share(dim: int) -> float:
    """What a row of `dim` weights loses by rounding and withholding, in prices of a byte, once it is worth to be sent.

    Measured: steps are powers of two and stay, and a row is withheld up to the price of its bytes.
    """
    return _ROW_BYTES + _WEIGHT_BYTES * dim


def price_of_loss(missing: Sequence[Float64s], shares: Sequence[float | Float64s], allowed: float) -> float:
    """The price of a byte at which all rows together lose what is allowed; the highest one if they cannot lose as much.

    A row loses its share of the price, and at most what it loses if serving does not hold it (reverse water-filling;
    Cover and Thomas, "Elements of Information Theory", 10.3.3).

    Args:
        missing: by table, [n] what each row loses if serving does not hold it.
        shares: by table, `row_share`, or [n] that of each row.
        allowed: the loss.

    >>> price_of_loss([np.array([1.0, 10.0, 10.0])], [2.0], allowed=9.0)
    2.0
    """
    losses = np.concatenate([np.empty(0), *missing])
    share = np.concatenate(
        [np.empty(0), *(np.broadcast_to(np.float64(of), len(rows)) for of, rows in zip(shares, missing, strict=True))]
    )
    price, whole = 0.0, np.zeros(len(losses), np.bool_)
    # What all rows lose together is concave in the price and linear between two rows: Newton's method ends exactly.
    while not whole.all():
        price = max(allowed - float(losses[whole].sum()), 0.0) / float(share[~whole].sum())
        reached = losses <= share * price
        if not (reached & ~whole).any():
            return price
        whole |= reached
    return float((losses / share).max(initial=0.0))
