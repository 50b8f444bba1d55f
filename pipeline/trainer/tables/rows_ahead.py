"""Rows that come back to memory after a restart before batches need them, as far as the budget allows.

All rows of the version pass by once, because the publisher compares them with what serving holds; those of most worth
are brought back on the way, a bounded number at each batch boundary.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from pipeline.arrays.types import Float64s, UInt64s
from pipeline.trainer.tables.boundary import BoundaryCalls
from pipeline.trainer.tables.cold_table import ColdTable
from pipeline.trainer.tables.cold_tier import ColdTier
from pipeline.trainer.tables.table import Rows

_ROWS = 8_192
"""Rows that are brought back at one boundary: about two milliseconds."""
_PASSED_ROWS = 65_536
"""Rows that pass by at once."""


class RowsAhead:
    """Brings back the most valuable rows of each table. For a thread beside training, before the first commit."""

    def __init__(self, tier: ColdTier, calls: BoundaryCalls, share: float, half_life_s: float) -> None:
        """`share`: of the rows that the budget holds."""
        self._tier, self._calls, self._share, self._half_life_s = tier, calls, share, half_life_s

    def passing(self, name: str, table: ColdTable) -> Iterator[tuple[UInt64s, Rows]]:
        """All rows of a table, in pieces. Raises DamagedError.

        Keys are hashes: a piece is a sample of the table, and of each the same share is brought back.
        """
        for piece_keys, packed in table.stored():
            for start in range(0, len(piece_keys), _PASSED_ROWS):
                part = slice(start, start + _PASSED_ROWS)
                keys, rows = piece_keys[part], packed[part].view(table.table.row_dtype).reshape(-1)
                yield keys, rows
                order = np.argsort(worth_of(rows, self._half_life_s))
                chosen = np.sort(order[len(order) - int(self._share * len(order)) :])
                for first in range(0, len(chosen), _ROWS):
                    few = chosen[first : first + _ROWS] + start
                    self._calls.run(partial(self._tier.swap_in_ahead, name, piece_keys[few], packed[few]))


def worth_of(rows: Rows, half_life_s: float) -> Float64s:
    """[n] what rows are worth to keep in memory, as `Table.sample_worths`."""
    worths: Float64s = np.log2(1.0 + rows["count"]) + rows["last_seen_s"] / half_life_s
    return worths
