"""Served rows as an Arrow table; a replica and a version's served view export alike."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.versions.deltas.quantizer import payload_offsets
from pipeline.versions.deltas.served_view import ServedView

SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("key", pa.uint64()),
        ("handle", pa.uint32()),
        ("bits", pa.uint8()),
        ("payload", pa.binary()),
        ("weights", pa.list_(pa.float32())),
    ]
)


def served_table(views: Sequence[ServedView]) -> pa.Table:
    """One table's rows, sorted by shard and key, columns as in SCHEMA.

    Args:
        views: one view per shard, in shard order.
    """
    return pa.concat_tables([SCHEMA.empty_table(), *(_rows(shard, view) for shard, view in enumerate(views))])


def _rows(shard: int, view: ServedView) -> pa.Table:
    keys = view.keys()
    handles, bits, payload = view.export(keys)
    ends = pa.array(payload_offsets(bits, view.dim).astype(np.int32))
    weights = view.decode(keys)
    starts = pa.array(np.arange(len(keys) + 1, dtype=np.int32) * view.dim)
    columns = [
        pa.array(np.full(len(keys), shard, np.int32)),
        pa.array(keys),
        pa.array(handles),
        pa.array(bits),
        pa.Array.from_buffers(pa.binary(), len(keys), [None, ends.buffers()[1], pa.py_buffer(payload)]),
        pa.ListArray.from_arrays(starts, pa.array(weights.reshape(-1))),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)
