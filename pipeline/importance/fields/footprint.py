"""What a field takes up, and leaving it out would free: rows, bytes in the trainer and in serving, look-ups.

Rows of a table of its own belong to the field. Of a shared table, a row belongs to it if no other field reads the row's
key: that is known for the keys of the samples only, and their share is taken for the share of all rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import UInt64s


@dataclass(frozen=True)
class TableSize:
    """The rows of one table and their bytes.

    Attributes:
        rows: in the trainer.
        row_bytes: of them: weights, optimizer state and statistics.
        served_bytes: payload of its rows in serving.
    """

    rows: int
    row_bytes: int
    served_bytes: int

    def __add__(self, other: "TableSize") -> "TableSize":
        return TableSize(
            self.rows + other.rows, self.row_bytes + other.row_bytes, self.served_bytes + other.served_bytes
        )


@dataclass(frozen=True)
class Footprint:
    """What leaving one field out would free.

    Attributes:
        rows: rows that no other field reads.
        row_bytes: their bytes in the trainer.
        served_bytes: their bytes in serving.
        estimated: whether the rows are estimated from the samples, because other fields read the table too.
        lookups: its share of the rows that all fields look up for the samples, counted.
    """

    rows: int
    row_bytes: int
    served_bytes: int
    estimated: bool
    lookups: float


def footprints(
    keys: Mapping[str, UInt64s], tables: Mapping[str, Sequence[str]], sizes: Mapping[str, TableSize]
) -> dict[str, Footprint]:
    """By field, its footprint.

    Args:
        keys: by field, [m] uint64 the keys that it reads in the samples, repeated ones included.
        tables: by table, the fields that read it.
        sizes: by table.

    >>> size = TableSize(10, 1000, 200)
    >>> keys = {"a": np.uint64([1, 2, 2]), "b": np.uint64([2])}
    >>> footprints(keys, {"t": ["a", "b"]}, {"t": size})["a"]
    Footprint(rows=5, row_bytes=500, served_bytes=100, estimated=True, lookups=0.75)
    """
    total = sum(map(len, keys.values()))
    found = {}
    for table, fields in tables.items():
        distinct = {field: np.unique(keys[field]) for field in fields}
        seen = len(np.unique(np.concatenate(list(distinct.values()))))
        for field in fields:
            share = 1.0
            if len(fields) > 1:
                rest = np.concatenate([distinct[other] for other in fields if other != field])
                alone = len(np.setdiff1d(distinct[field], rest))
                share = alone / seen if seen else 0.0
            size, lookups = sizes[table], len(keys[field]) / total if total else 0.0
            rows, row_bytes, served = (round(share * each) for each in (size.rows, size.row_bytes, size.served_bytes))
            found[field] = Footprint(rows, row_bytes, served, len(fields) > 1, lookups)
    return found
