"""A gradient that its rows learn one batch late (`train.pipeline_depth = 2`), and its form in a version.

A container. Its header: `at_s` and the numbers of `rows`, `tables` and `fields`. Its sections, with the number of the
table or field in place of T or F:

    gradient                          [rows, columns] float32
    keys.T, counts.T                  as `TableBatch`
    inverse.F, offsets.F, weights.F   as `FieldBatch`
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.errors import InputError
from pipeline.formats.container import Container, Kind, encode_container
from pipeline.trainer.batch.held import HeldRows
from pipeline.trainer.batch.prefetch import FieldBatch, TableBatch

_KIND = Kind(b"late", "restore an earlier version")
_LIMIT = 1e17
"""Of a gradient element of a row, as in `native/table/optimizers/optimizer.h`."""
_OF_TABLES = {"keys": np.uint64, "counts": np.uint32}
_OF_FIELDS = {"inverse": np.int32, "offsets": np.int64, "weights": np.float32}


@dataclass(frozen=True, eq=False)
class LateGradient:
    """What the rows of one batch are still to learn."""

    tables: Sequence[TableBatch]
    fields: Sequence[FieldBatch]
    gradient: Float32s
    """[rows, columns] of the batch's input."""
    at_s: int
    """Log time after the batch, s since 1970."""
    held: HeldRows | None = None
    """Its rows, if some rows are not in memory."""

    def check(self) -> None:
        """Raise InputError if some row could refuse its part: it would do so after the batch was committed."""
        if not self.gradient.size:
            return
        largest = max(float(self.gradient.max()), -float(self.gradient.min()))
        weight = max([1.0, *(float(each.weights.max()) for each in self.fields if len(each.weights))])
        # More than any row's sum over its occurrences.
        bound = largest * weight * sum(len(each.inverse) for each in self.fields)
        if not bound <= _LIMIT:
            wanted = f"finite ones of at most {_LIMIT:g} in the sum of a row"
            raise InputError(f"gradient: got numbers of up to {largest:g}, wanted {wanted}")

    def to_bytes(self) -> bytes:
        """Everything but `held`; equal gradients of equal batches give equal bytes."""
        header = {"at_s": self.at_s, "rows": len(self.gradient)}
        header |= {"tables": len(self.tables), "fields": len(self.fields)}
        sections = {"gradient": np.ascontiguousarray(self.gradient).reshape(-1)}
        for parts, names in ((self.tables, _OF_TABLES), (self.fields, _OF_FIELDS)):
            sections |= {f"{name}.{i}": getattr(part, name) for i, part in enumerate(parts) for name in names}
        return encode_container(_KIND, header, sections)

    @classmethod
    def of_bytes(cls, packed: bytes) -> "LateGradient":
        """That of `to_bytes`. Raises DamagedError."""
        container = Container.of(packed, _KIND, name="late gradient")
        with container.parsing():
            header = container.header
            tables = [TableBatch(**_arrays(container, _OF_TABLES, i)) for i in range(header["tables"])]
            fields = [FieldBatch(**_arrays(container, _OF_FIELDS, i)) for i in range(header["fields"])]
            gradient = container.array("gradient", np.float32).reshape(header["rows"], -1)
            return cls(tables, fields, gradient, int(header["at_s"]))


def _arrays(container: Container, names: dict[str, Any], number: int) -> dict[str, Any]:
    return {name: container.array(f"{name}.{number}", dtype) for name, dtype in names.items()}
