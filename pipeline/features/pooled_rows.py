"""The pooled rows of all fields, for serving and for the evaluation of a version: rows are looked up by the caller."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.arrays.types import Float32s, UInt64s
from pipeline.configuration.model.fields import FieldConfig
from pipeline.features.plan import FieldKeys
from pipeline.features.pooling import Pooling, pool

RowLookup = Callable[[str, UInt64s], Float32s]
"""(table, keys [m]) → [m, dim]; zeros for a key without a row."""


def write_pooled_rows(
    fields: Sequence[FieldConfig],
    keys: Mapping[str, FieldKeys],
    lookup: RowLookup,
    starts: Mapping[str, int],
    out: Float32s,
) -> None:
    """Write the pooled rows of n samples to `out` [n, columns], each field's from its column in `starts` on."""
    for field in fields:
        found = keys[field.name]
        each = np.arange(len(found.keys), dtype=np.int32)
        rows = lookup(field.table_name, found.keys)
        pool(rows, each, found.offsets, Pooling.of(field), out, starts[field.name], found.weights)
