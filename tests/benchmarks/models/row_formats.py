"""All rows of a factorisation machine in the formats of `springtide export weights`: bytes, and logits by them."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.publish.row_formats import FORMATS, write_rows
from tests.benchmarks.models.drifting_stream import DIM, FactorisationMachine, Samples
from tests.support.page import page, run


@dataclass(frozen=True)
class ExportedRows:
    """The rows of a table as read from a file: keys [n] uint64 ascending, weights [n, dim] float32."""

    keys: np.ndarray
    weights: np.ndarray

    def lookup(self, keys: np.ndarray) -> np.ndarray:
        """[k, dim]; zeros for a key without a row."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((self.keys[at] == keys)[:, None], self.weights[at], np.float32(0))


def compare_formats(model: FactorisationMachine, samples: Samples) -> dict[str, tuple[int, np.ndarray]]:
    """By format, the bytes of the files of all tables, and the logits of `samples` by the rows in them."""
    read_rows = run(page("rows.md"), "rows")["read_rows"]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for format in FORMATS:
            paths, exported = [Path(folder) / str(number) for number in range(len(model.tables))], list[ExportedRows]()
            for path, table in zip(paths, model.tables, strict=True):
                keys = np.sort(table.keys())
                write_rows(path, [(0, keys, np.ascontiguousarray(table.rows(keys)["weights"]))], format, DIM)
                exported.append(ExportedRows(*read_rows(path)))
            logits = model.logits(samples.keys, lambda number, keys, rows=exported: rows[number].lookup(keys))
            found[format] = sum(path.stat().st_size for path in paths), logits
    return found
