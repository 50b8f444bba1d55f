"""How the rows of a table are served at a version, and what one more byte would buy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import UInt64s
from pipeline.publish.price.byte_price import Price
from pipeline.publish.price.priced_rows import ServedRows
from pipeline.publish.price.rounded_rows import score_sent
from pipeline.publish.price.withheld import decayed
from pipeline.versions.deltas.quantizer import PRECISIONS
from pipeline.versions.deltas.rounding import RowRounding
from pipeline.versions.deltas.served_view import ServedView

Rows = npt.NDArray[Any]
NOT_SERVED = 0


@dataclass(frozen=True)
class PriceAtVersion:
    """What decides precision at a version.

    Attributes:
        price: of a byte.
        at_s: log time, s since 1970.
        half_life_s: of the losses of rows.
        loss: the trainer's, summed over samples and decayed likewise; above 0.
    """

    price: Price
    at_s: int
    half_life_s: float
    loss: float

    @property
    def per_byte(self) -> float:
        """The price of a byte, relative to the trainer's loss."""
        return self.price.per_byte / self.loss

    @property
    def dense_loss(self) -> float:
        """The loss by what serving holds of the dense weights, relative to the trainer's."""
        return self.price.correction * self.price.dense_estimate


@dataclass(frozen=True)
class TablePrecision:
    """The rows of one table in serving. Losses are estimates by curvature, relative to the trainer's loss.

    Attributes:
        rows: by bits per weight; 0: serving does not hold the row.
        withheld: rows that sending would improve.
        serving_loss: by what serving holds of all rows.
        next_byte: what the best byte that is not sent would take off; a row is sent if its bytes take off more than
            the price.
        sent_rows: of the version's own delta.
        sent_bytes: of these rows, coded, with keys and handles.
    """

    rows: dict[int, int]
    withheld: int
    serving_loss: float
    next_byte: float
    sent_rows: int
    sent_bytes: int

    @property
    def bytes_per_row(self) -> float | None:
        """Bytes of a row that was sent; None if none was."""
        return self.sent_bytes / self.sent_rows if self.sent_rows else None


def table_precision(
    keys: UInt64s, rows: Rows, view: ServedView, rounding: RowRounding | None, at: PriceAtVersion, sent: tuple[int, int]
) -> TablePrecision:
    """That of n packed rows [n], whose keys [n] uint64 ascend; `sent`: rows of the version's delta, and their bytes."""
    weights, bits, _ = view.lookup(keys)
    scores = score_sent(rows, ServedRows(weights, bits, view.exponents(keys)), rounding, at.price.unit)
    seen_s = np.ascontiguousarray(rows["last_seen_s"])
    per_byte = scores.worth / scores.cost_bytes
    error, gain = decayed(scores.error, per_byte, seen_s, at.at_s, at.half_life_s)
    counts = {each: int(np.count_nonzero(bits == each)) for each in (NOT_SERVED, *PRECISIONS)}
    return TablePrecision(
        rows=counts,
        withheld=int(np.count_nonzero(scores.improves)),
        serving_loss=at.price.correction * float(error.astype(np.float64).sum()) / at.loss,
        next_byte=float(gain.max(initial=0.0, where=scores.improves)) / at.loss,
        sent_rows=sent[0],
        sent_bytes=sent[1],
    )


def of_all_shards(shards: Sequence[TablePrecision]) -> TablePrecision:
    """That of the rows of all shards, each relative to the loss of its shard; losses are their means."""
    return TablePrecision(
        rows={bits: sum(shard.rows[bits] for shard in shards) for bits in shards[0].rows},
        withheld=sum(shard.withheld for shard in shards),
        serving_loss=float(np.mean([shard.serving_loss for shard in shards])),
        next_byte=max(shard.next_byte for shard in shards),
        sent_rows=sum(shard.sent_rows for shard in shards),
        sent_bytes=sum(shard.sent_bytes for shard in shards),
    )
