"""The row order of an encoded delta: by precision, known before new, by handle. Wraps `native/serving/row_groups`."""

from typing import Any

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array
from pipeline.arrays.types import Int64s, UInt8s, UInt32s, UInt64s
from pipeline.errors import InputError
from pipeline.versions.deltas.quantizer import payload_total


def group_rows(
    handles: UInt32s, new_keys: UInt64s, new_handles: UInt32s, bits: UInt8s, payload: UInt8s, dim: int
) -> list[dict[str, Any]]:
    """The `groups` of a table in `schemas/delta.avsc`: one for each precision that occurs, coarsest first.

    Args:
        handles: [k] uint32, of rows that serving holds.
        new_keys: [n] uint64, of rows that serving does not hold.
        new_handles: [n] uint32.
        bits: [k + n] uint8, precisions; known rows first.
        payload: [total] uint8, the rows' payloads in the same order.
        dim: weights per row.

    Raises:
        InputError: a wrong dtype, shape or precision, or a payload whose length does not match `bits`.
    """
    require_array("handles", handles, np.uint32, ("k",))
    require_array("new_handles", new_handles, np.uint32, ("n",))
    require_array("new_keys", new_keys, np.uint64, (len(new_handles),))
    require_array("bits", bits, np.uint8, (len(handles) + len(new_handles),))
    require_array("payload", payload, np.uint8, (payload_total(bits, dim),))
    groups: list[dict[str, Any]] = _native.group_rows(handles, new_keys, new_handles, bits, payload, int(dim))
    return groups


def reorder_payload(payload: UInt8s, bits: UInt8s, order: Int64s, dim: int) -> UInt8s:
    """Reorder payloads.

    Args:
        payload: [total] uint8.
        bits: [n] uint8, precisions, in the order of the payload.
        order: [n] int64, a permutation: the index of the first row, of the second, and so on.
        dim: weights per row.

    >>> reorder_payload(np.uint8([1, 2, 3, 4, 5, 6]), np.uint8([16, 32]), np.array([1, 0]), 1).tolist()
    [3, 4, 5, 6, 1, 2]

    Raises:
        InputError: a wrong dtype, shape, precision or order.
    """
    require_array("bits", bits, np.uint8, ("n",))
    require_array("payload", payload, np.uint8, (payload_total(bits, dim),))
    require_array("order", order, np.int64, (len(bits),))
    seen = np.zeros(len(bits), np.bool_)
    if len(order) and (order.min() < 0 or order.max() >= len(bits)):
        raise InputError(f"order: got {order.min()}..{order.max()}, wanted each of 0..{len(bits) - 1} once")
    seen[order] = True
    if not seen.all():
        raise InputError(f"order: got no {int(np.argmin(seen))}, wanted each of 0..{len(bits) - 1} once")
    reordered: UInt8s = _native.reorder_payload(payload, bits, order, int(dim))
    return reordered
