"""What the bytes of a delta are spent on."""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.versions.deltas.coded_rows import code_rows
from pipeline.versions.deltas.delta import DenseChange, FieldDelta, decode_delta
from pipeline.versions.deltas.quantizer import PRECISIONS, payload_total

_INTEGERS, _FLOATS = 16, 32


@dataclass(frozen=True)
class DeltaSizes:
    """The bytes and rows of one delta.

    Attributes:
        weights: bytes of the weights of rows.
        keys: bytes of keys, handles and tombstones: those of the same rows with zeros as weights.
        dense: bytes of the dense weights or their change.
        header: all other bytes: versions, digests, names.
        rows: by bits per weight, the rows sent.
        removed: tombstones.
    """

    weights: int
    keys: int
    dense: int
    header: int
    rows: dict[int, int]
    removed: int

    @property
    def total(self) -> int:
        """The bytes of the delta."""
        return self.weights + self.keys + self.dense + self.header

    @property
    def sent(self) -> int:
        """The rows sent."""
        return sum(self.rows.values())

    @classmethod
    def of(cls, encoded: bytes) -> "DeltaSizes":
        """Those of an encoded delta. Raises DamagedError."""
        delta = decode_delta(encoded)
        changes = delta.fields.values()
        coded = sum(coded_bytes(change) for change in changes)
        keys = sum(coded_bytes(_zeros(change)) for change in changes)
        dense = _dense_bytes(delta.dense)
        bits = np.concatenate([np.empty(0, np.uint8), *(change.bits for change in changes)])
        rows = {precision: int(np.count_nonzero(bits == precision)) for precision in PRECISIONS}
        removed = sum(len(change.removed) for change in changes)
        return cls(coded - keys, keys, dense, len(encoded) - coded - dense, rows, removed)


def coded_bytes(change: FieldDelta) -> int:
    """The bytes of a table's rows; the same rows always have the same."""
    return len(code_rows(change.rows, change.dim))


def _zeros(change: FieldDelta) -> FieldDelta:
    """The same rows with zeros as weights, which take almost no bytes; floats would, so they become integers."""
    bits = np.where(change.bits == _FLOATS, _INTEGERS, change.bits).astype(np.uint8)
    return replace(change, bits=bits, payload=np.zeros(payload_total(bits, change.dim), np.uint8))


def _dense_bytes(dense: bytes | DenseChange) -> int:
    if isinstance(dense, bytes):
        return len(dense)
    return len(dense.digest or b"") + len(dense.arrays or b"") + len(dense.blocks)
