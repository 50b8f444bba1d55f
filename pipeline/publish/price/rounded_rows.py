"""The rows of a table as they are sent: those that training rounds as its forward pass reads them, bit for bit, all
others by the price of a byte.

A row that training rounds has no precision to choose: it may be sent if what training reads differs from what serving
holds.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays.types import Float32s, Int64s, UInt8s
from pipeline.publish.price.priced_rows import SKIP, RowScores, ServedRows, quantize, score_rows
from pipeline.versions.deltas.coded_rows import reorder_payload
from pipeline.versions.deltas.quantizer import decode_rows
from pipeline.versions.deltas.rounding import RowRounding

Rows = npt.NDArray[Any]


def score_sent(rows: Rows, served: ServedRows, rounding: RowRounding | None, unit: float) -> RowScores:
    """What sending n packed rows is worth; `unit` as in `priced_rows`."""
    if rounding is None:
        return score_rows(rows["weights"], served, _curvature(rows), unit)
    applies = rounding.applies(np.ascontiguousarray(rows["importance"]))
    scores = RowScores.empty(len(rows))
    trained = _score_trained(rows[applies], served.where(applies), rounding, unit)
    others = ~applies
    priced = score_rows(rows["weights"][others], served.where(others), _curvature(rows[others]), unit)
    for chosen, part in ((applies, trained), (others, priced)):
        for column, values in zip(scores, part, strict=True):
            column[chosen] = values
    return scores


def quantize_rows(rows: Rows, served: ServedRows, rounding: RowRounding | None, unit: float) -> tuple[UInt8s, UInt8s]:
    """The precisions [n] of n packed rows, SKIP for one that is not sent, and the payloads of the others.

    A row that training rounds has the format it was trained in, any other what `quantize` chooses. A row that serving
    does not hold is sent also if it is all zeros.
    """
    if rounding is None:
        return quantize(rows["weights"], served, _curvature(rows), unit)
    applies = rounding.applies(np.ascontiguousarray(rows["importance"]))
    if applies.all():
        return _as_trained(rows, served, rounding)
    others = ~applies
    bits, positions = np.empty(len(rows), np.uint8), list[Int64s]()
    trained = _as_trained(rows[applies], served.where(applies), rounding)
    priced = quantize(rows["weights"][others], served.where(others), _curvature(rows[others]), unit)
    for chosen, (each, _) in ((applies, trained), (others, priced)):
        bits[chosen] = each
        positions.append(np.flatnonzero(chosen)[each != SKIP])
    order = np.concatenate(positions)
    payload = np.concatenate([trained[1], priced[1]])
    return bits, reorder_payload(payload, bits[order], np.argsort(order), served.weights.shape[1])


def _curvature(rows: Rows) -> Float32s:
    return np.ascontiguousarray(rows["curvature"])


def _score_trained(rows: Rows, served: ServedRows, rounding: RowRounding, unit: float) -> RowScores:
    """Serving holds what training reads: nothing is left of the error of a row that is sent."""
    read = decode_rows(rounding.encode(rows["weights"]), "step8", served.weights.shape[1])
    scores = score_rows(read, served, _curvature(rows), unit)
    differs = (read != served.weights).any(axis=1)
    return scores._replace(improves=differs, worth=scores.error)


def _as_trained(rows: Rows, served: ServedRows, rounding: RowRounding) -> tuple[UInt8s, UInt8s]:
    payloads = rounding.encode(rows["weights"])
    differs = (decode_rows(payloads, "step8", served.weights.shape[1]) != served.weights).any(axis=1)
    sent = differs | (served.bits == SKIP)
    return np.where(sent, rounding.bits, SKIP).astype(np.uint8), payloads[sent].ravel()
