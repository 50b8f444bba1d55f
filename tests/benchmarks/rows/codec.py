"""Codec of deltas: bytes per row sent, and rows encoded and applied per core-second.

Rows of dim 16 drift: each of a table's rows is served on a step of a fifth of its weights, then moves by a share of
its length that differs from row to row, and a tenth of the table is sent. Beside it, as bytes per row among a
figure's sizes: zstd (level 19) with a dictionary trained on other rows and a varint per handle, the entropy of the
integers under one table of frequencies, and the codec of format 1 (12 bytes and a varint). Rates are of processor
time, the best of several calls, through the Python interface with all its checks: encoding includes the differences
and the choice of the integers, applying the lookup of handles, the sums, the digest and the write into the served
view.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from pipeline.publish.price.priced_rows import ServedRows, quantize
from pipeline.serving.staged_delta import stage_field
from pipeline.versions.deltas.coded_rows import ChangedRows, code_rows, decode_coded_rows
from pipeline.versions.deltas.delta import FieldDelta
from pipeline.versions.deltas.quantizer import payload_bytes
from pipeline.versions.deltas.served_view import ServedView
from tests.benchmarks.harness.report import Figure

DIM, ROWS, BITS = 16, 1_000_000, 4
STEP_SQUARE = 0.04
"""Of a step over the mean square of a row: about that of the rows served."""
ENCODE_LEAST, APPLY_LEAST = 3e6, 5e6
BYTES_MOST = 7.0
RATE = "rows per core-second"
NONE32, NONE64 = np.empty(0, np.uint32), np.empty(0, np.uint64)


def measure(folder: Path, quick: bool) -> list[Figure]:
    sent = _Sent(ROWS // 100 if quick else ROWS)
    coded = sent.coded()
    n = len(sent.keys)
    sizes = {"rows": n, "table": len(sent.served), "dim": DIM} | sent.peers()
    decoded = FieldDelta(dim=DIM, **decode_coded_rows(coded, DIM)._asdict())
    return [
        Figure("codec: difference", len(coded) / n, "bytes per row sent", sizes, most=BYTES_MOST),
        Figure("codec: encode", _rate(n, sent.coded), RATE, {"rows": n}, ENCODE_LEAST),
        Figure("codec: code integers", _rate(n, lambda: code_rows(sent.rows(), DIM)), RATE, {"rows": n}),
        Figure("codec: decode integers", _rate(n, lambda: decode_coded_rows(coded, DIM)), RATE, {"rows": n}),
        Figure("codec: apply", _rate(n, lambda: sent.apply(coded)), RATE, {"rows": n}, APPLY_LEAST),
        Figure("codec: stage", _rate(n, lambda: stage_field(sent.view, decoded, "benchmark")), RATE, {"rows": n}),
    ]


class _Sent:
    """A served table, and the tenth of its rows that one delta sends."""

    def __init__(self, rows: int) -> None:
        random = np.random.default_rng(1)
        weights = (random.standard_normal((rows, DIM)) * 0.05).astype(np.float32)
        keys, none = random.permutation(rows).astype(np.uint64), np.zeros(rows, np.uint8)
        self.view = ServedView(DIM)
        unserved = ServedRows(np.zeros_like(weights), none, none.view(np.int8))
        bits, payload = quantize(weights, unserved, _curvature(weights), STEP_SQUARE)
        self.view.put(keys, np.arange(rows, dtype=np.uint32), bits, payload)
        self.served = weights
        chosen = np.sort(random.choice(rows, rows // 10, replace=False))
        share = 10 ** random.uniform(-1, -0.2, (len(chosen), 1))
        moved = weights[chosen] + share * 0.05 * random.standard_normal((len(chosen), DIM))
        self.keys, self.moved = keys[chosen], moved.astype(np.float32)
        self._curvature = _curvature(self.moved)
        self._coded = self.rows()

    def rows(self) -> ChangedRows:
        """The rows as a delta carries them; those that are no closer than what is served are left out."""
        served, served_bits, handles = self.view.lookup(self.keys)
        exponents = self.view.exponents(self.keys)
        rows = ServedRows(served, served_bits, exponents)
        bits, payload = quantize(self.moved, rows, self._curvature, STEP_SQUARE)
        sent = bits > 0
        differences, relative = self.view.differences(self.keys[sent], bits[sent], payload)
        return ChangedRows(handles[sent], relative, NONE64, NONE32, bits[sent], differences, NONE64)

    def coded(self) -> bytes:
        return code_rows(self.rows(), DIM)

    def apply(self, coded: bytes) -> None:
        change = FieldDelta(dim=DIM, **decode_coded_rows(coded, DIM)._asdict())
        stage_field(self.view, change, "benchmark").switch()

    def peers(self) -> dict[str, Any]:
        """Bytes per row of the same rows in other codes."""
        rows, n = self._coded, len(self._coded.handles)
        integers = rows.payload.reshape(n, payload_bytes(BITS, DIM))[:, 1:]
        handles = len(code_rows(rows._replace(payload=np.zeros_like(rows.payload)), DIM)) / n
        half = n // 2
        samples = [part.tobytes() for part in np.array_split(integers[:half], max(8, half // 500))]
        trained = zstandard.train_dictionary(1 << 14, samples)
        compressed = zstandard.ZstdCompressor(19, dict_data=trained).compress(integers[half:].tobytes())
        _, counts = np.unique(integers, return_counts=True)
        share = counts / counts.sum()
        return {
            "zstd and varints": len(compressed) / (n - half) + 1,
            "entropy of the integers": float(-(share * np.log2(share)).sum() * DIM / 8),
            "handles": handles,
            "format 1": 13.0,
        }


def _curvature(weights: np.ndarray) -> np.ndarray:
    """[n] with which the step of a row follows its weights."""
    curvature: np.ndarray = (1 / np.square(weights.astype(np.float64)).mean(axis=1)).astype(np.float32)
    return curvature


def _rate(rows: int, work: Callable[[], Any], calls: int = 5) -> float:
    times = []
    for _ in range(calls):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return rows / min(times)
