"""Rows of a table that is trained for few bits, as they are sent: what the forward pass of training reads, bit for bit.

Such a row has no precision to choose. It is sent if what training reads differs from what serving holds.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Bools, Float32s, Int8s, Int64s, UInt8s
from pipeline.publish.precision import SKIP, quantize
from pipeline.versions.deltas.coded_rows import reorder_payload
from pipeline.versions.deltas.quantizer import decode_rows
from pipeline.versions.deltas.rounding import RowRounding

Rows = npt.NDArray[Any]


class ServedRows(NamedTuple):
    """What serving holds of n keys.

    Attributes:
        weights: [n, dim] float32; zeros for a key that serving does not hold.
        bits: [n] uint8, 0 for such a key.
        exponents: [n] int8, of rows of integers.
    """

    weights: Float32s
    bits: UInt8s
    exponents: Int8s

    def where(self, chosen: Bools) -> "ServedRows":
        """Those of the chosen keys, [n] bool."""
        return ServedRows(self.weights[chosen], self.bits[chosen], self.exponents[chosen])


def quantize_rows(rows: Rows, served: ServedRows, rounding: RowRounding | None) -> tuple[UInt8s, UInt8s]:
    """The precisions [n] of n packed rows, SKIP for one that is not sent, and the payloads of the others.

    A row that training rounds has the format it was trained in, any other what `quantize` chooses.
    """
    if rounding is None:
        return _by_precision(rows, served)
    applies = rounding.applies(np.ascontiguousarray(rows["importance"]))
    if applies.all():
        return _as_trained(rows, served, rounding)
    bits, positions = np.empty(len(rows), np.uint8), list[Int64s]()
    trained = _as_trained(rows[applies], served.where(applies), rounding)
    others = _by_precision(rows[~applies], served.where(~applies))
    for chosen, (each, _) in ((applies, trained), (~applies, others)):
        bits[chosen] = each
        positions.append(np.flatnonzero(chosen)[each != SKIP])
    order = np.concatenate(positions)
    payload = np.concatenate([trained[1], others[1]])
    return bits, reorder_payload(payload, bits[order], np.argsort(order), served.weights.shape[1])


def _by_precision(rows: Rows, served: ServedRows) -> tuple[UInt8s, UInt8s]:
    importance = np.ascontiguousarray(rows["importance"])
    convergence = (1 - rows["unsettled"]).astype(np.float32)
    return quantize(rows["weights"], *served, importance, convergence)


def _as_trained(rows: Rows, served: ServedRows, rounding: RowRounding) -> tuple[UInt8s, UInt8s]:
    payloads = rounding.encode(rows["weights"])
    sent = (decode_rows(payloads, "step8", served.weights.shape[1]) != served.weights).any(axis=1)
    return np.where(sent, rounding.bits, SKIP).astype(np.uint8), payloads[sent].ravel()
