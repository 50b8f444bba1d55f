"""Quantizer: rows encoded and decoded per core-second and their error, compared with PyTorch's.

Normal rows × 0.05 at dim 16, and rows of a real run if its events are on this machine. The error is the squared
difference over the squared weights. Rates are of processor time, the best of several calls, through the Python
interface with all its checks. PyTorch runs in the system's interpreter over the same rows in the same run; its numbers
are among a figure's sizes.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.versions.deltas.quantizer import (
    CODEBOOK_BITS,
    CODECS,
    MAX_ENTRIES,
    decode_rows,
    encode_codebook,
    encode_rows,
)
from tests.benchmarks import peers
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.load.mind_rows import mind_rows
from tests.support.simd import forced_simd_level, simd_level, simd_levels

DIM = 16
ENCODE_LEAST, DECODE_LEAST = {"int4": 7e6}, {"int4": 50e6}
GREEDY_TIMES = 50.0
"""Target: this multiple of the rate of PyTorch's greedy search at 4 bits."""
ERROR_MOST = {"int4": 3.36e-3}
RATE = "rows per core-second"


def measure(folder: Path, quick: bool) -> list[Figure]:
    rows = (np.random.default_rng(1).standard_normal((2_000 if quick else 100_000, DIM)) * 0.05).astype(np.float32)
    peer = _torch(rows[: 2_000 if quick else 20_000], folder)
    figures = [figure for codec in CODECS for figure in _codec(rows, codec, peer)]
    figures += [figure for level in simd_levels()[:-1] for figure in _at_level(rows, level)]
    figures += [figure for codec in ("int2", "int4") for figure in _codebook(rows, codec)]
    return figures if quick else figures + _real(folder)


def _codec(rows: np.ndarray, codec: str, peer: dict[str, float]) -> list[Figure]:
    payloads = encode_rows(rows, codec)
    encode, decode = (
        _rate(rows, lambda: encode_rows(rows, codec)),
        _rate(rows, lambda: decode_rows(payloads, codec, DIM)),
    )
    sizes = {"rows": len(rows), "dim": DIM, "bytes a row": payloads.shape[1], "level": simd_level()}
    figures = [
        Figure(f"quantizer: encode {codec}", encode, RATE, sizes | _of(peer, codec, "encode"), ENCODE_LEAST.get(codec)),
        Figure(f"quantizer: decode {codec}", decode, RATE, sizes | _of(peer, codec, "decode"), DECODE_LEAST.get(codec)),
        _error_figure("normal rows", rows, codec, peer, ERROR_MOST.get(codec)),
    ]
    if codec == "int4" and peer:
        greedy = peer["int4 greedy encode"]
        figures.append(Figure("quantizer: encode int4", encode / greedy, "x greedy", {"greedy": greedy}, GREEDY_TIMES))
    return figures


def _at_level(rows: np.ndarray, level: str) -> list[Figure]:
    payloads = encode_rows(rows, "int4")
    sizes = {"rows": len(rows), "dim": DIM, "level": level}
    with forced_simd_level(level):
        encode, decode = (
            _rate(rows, lambda: encode_rows(rows, "int4")),
            _rate(rows, lambda: decode_rows(payloads, "int4", DIM)),
        )
    return [
        Figure(f"quantizer: encode int4, {level}", encode, RATE, sizes),
        Figure(f"quantizer: decode int4, {level}", decode, RATE, sizes),
    ]


def _codebook(rows: np.ndarray, codec: str) -> list[Figure]:
    read = decode_rows(encode_codebook(rows, codec), codec, DIM)
    sizes = {"rows": len(rows), "dim": DIM, "entries": MAX_ENTRIES}
    name = f"codebook of {CODEBOOK_BITS[codec]} bits"
    return [
        Figure(f"quantizer: encode {name}", _rate(rows, lambda: encode_codebook(rows, codec), calls=2), RATE, sizes),
        Figure(f"quantizer: error {name}, normal rows", _relative_error(rows, read), "of squares", sizes),
    ]


def _real(folder: Path) -> list[Figure]:
    figures = []
    for field, rows in mind_rows(folder / "mind").items():
        peer = _torch(rows, folder)
        for codec in ("int2", "int4", "int8"):
            most = peer.get(f"{codec} greedy error")
            figures.append(_error_figure(f"MIND {field} rows", rows, codec, peer, most))
    return figures


def _error_figure(what: str, rows: np.ndarray, codec: str, peer: dict[str, float], most: float | None) -> Figure:
    sizes = {"rows": len(rows), "dim": rows.shape[1]} | _of(peer, codec, "error")
    error = _relative_error(rows, decode_rows(encode_rows(rows, codec), codec, rows.shape[1]))
    return Figure(f"quantizer: error {codec}, {what}", error, "of squares", sizes, most=most)


def _relative_error(rows: np.ndarray, read: np.ndarray) -> float:
    exact = rows.astype(np.float64)
    return float(((read - exact) ** 2).sum() / (exact**2).sum())


def _rate(rows: np.ndarray, work: Callable[[], Any], calls: int = 9) -> float:
    times = []
    for _ in range(calls):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return len(rows) / min(times)


def _of(peer: dict[str, float], codec: str, what: str) -> dict[str, float]:
    """PyTorch's measurements for the same codec, with and without search."""
    names = {f"{codec} {what}": "torch", f"{codec} greedy {what}": "torch greedy"}
    return {label: peer[name] for name, label in names.items() if name in peer}


def _torch(rows: np.ndarray, folder: Path) -> dict[str, float]:
    """PyTorch's measurements over the same rows; empty, with the reason printed, if it is unavailable."""
    path = folder / "rows.npy"
    np.save(path, rows)
    return peers.run(peers.TORCH, "torch_quantizer", rows=path) or {}
