"""What a delta changes in the served view of one table, and its form in the delta."""

from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Bools, UInt8s, UInt32s, UInt64s
from pipeline.versions.deltas.coded_rows import reorder_payload
from pipeline.versions.deltas.delta import FieldDelta
from pipeline.versions.deltas.served_view import ServedView


@dataclass(frozen=True)
class ServedChange:
    """What one delta changes in the served view of a table: m rows as serving holds them, by key, and tombstones."""

    keys: UInt64s
    handles: UInt32s
    bits: UInt8s
    payload: UInt8s
    removed: UInt64s


def served_field_delta(view: ServedView, keys: UInt64s, new: Bools, removed: UInt64s) -> FieldDelta:
    """The rows of `keys` as `view` holds them, and tombstones. `new`: [n] bool, keys that serving does not hold yet."""
    handles, bits, payload = view.export(keys)
    absolute = np.zeros(len(keys), np.bool_)
    return field_delta(view.dim, ServedChange(keys, handles, bits, payload, removed), new, absolute)


def field_delta(dim: int, change: ServedChange, new: Bools, relative: Bools) -> FieldDelta:
    """The change as part of a delta, which orders known rows before new ones.

    Of its m rows, those with `new` are unknown to serving, and the payloads of those with `relative` are differences.
    """
    order = np.argsort(new, kind="stable")
    known, fresh = np.split(order, [len(new) - np.count_nonzero(new)])
    payload, bits = change.payload, change.bits
    if len(known) and len(fresh):
        payload, bits = reorder_payload(payload, bits, order, dim), bits[order]
    return FieldDelta(
        dim=dim,
        handles=change.handles[known],
        new_keys=change.keys[fresh],
        new_handles=change.handles[fresh],
        bits=bits,
        payload=payload,
        removed=change.removed,
        relative=relative[known],
    )
