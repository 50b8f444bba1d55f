"""The rows of a table as a snapshot would carry them at another price of a byte."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Float32s, UInt64s
from pipeline.publish.precision.tables import NOT_SERVED, PriceAtVersion
from pipeline.publish.price.priced_rows import ServedRows
from pipeline.publish.price.rounded_rows import quantize_rows, score_sent
from pipeline.publish.price.withheld import decayed
from pipeline.versions.deltas.coded_rows import ChangedRows, code_rows
from pipeline.versions.deltas.quantizer import PRECISIONS, decode
from pipeline.versions.deltas.rounding import RowRounding

Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class RoundedTable:
    """n rows at a price.

    Attributes:
        weights: [n, dim] float32, as serving would decode them; zeros for a row that is not worth its bytes.
        rows: by bits per weight; 0: the row is not worth its bytes.
        size_bytes: of the other rows, coded, with keys and handles.
    """

    weights: Float32s
    rows: dict[int, int]
    size_bytes: int

    @classmethod
    def of(cls, keys: UInt64s, rows: Rows, rounding: RowRounding | None, at: PriceAtVersion) -> "RoundedTable":
        """Those of n packed rows, whose keys [n] uint64 ascend, for a serving that holds nothing."""
        dim = rows["weights"].shape[1]
        nothing = ServedRows(np.zeros((len(rows), dim), np.float32), np.zeros(len(rows), np.uint8),
                             np.zeros(len(rows), np.int8))  # fmt: skip
        scores = score_sent(rows, nothing, rounding, at.price.unit)
        seen_s = np.ascontiguousarray(rows["last_seen_s"])
        per_byte, _ = decayed(scores.worth / scores.cost_bytes, scores.worth, seen_s, at.at_s, at.half_life_s)
        sent = scores.improves & (per_byte > np.float32(at.price.per_byte))
        bits, payload = quantize_rows(rows[sent], nothing.where(sent), rounding, at.price.unit)
        weights = np.zeros((len(rows), dim), np.float32)
        weights[sent] = decode(payload, bits, dim)
        none32, none64 = np.empty(0, np.uint32), np.empty(0, np.uint64)
        handles = np.arange(len(bits), dtype=np.uint32)
        changed = ChangedRows(none32, np.empty(0, np.bool_), keys[sent], handles, bits, payload, none64)
        counts = {each: int(np.count_nonzero(bits == each)) for each in PRECISIONS}
        return cls(weights, {NOT_SERVED: int(np.count_nonzero(~sent))} | counts, len(code_rows(changed, dim)))


def at_price(at: PriceAtVersion, factor: float) -> PriceAtVersion:
    """The same version at another price: `factor` times that of rows and steps."""
    price = at.price
    scaled = replace(price, per_byte=factor * price.per_byte, for_steps=factor * price.for_steps)
    return replace(at, price=scaled)
