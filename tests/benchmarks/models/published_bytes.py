"""Bytes of realtime deltas against what serving loses, on a stream that drifts.

A factorisation machine (`drifting_stream`) learns intervals of samples; after each, publishers with different allowed
losses send a delta to views of their own, from the first interval on. What serving loses is the log loss of the samples
of the next interval, before they are learned, under the true probabilities, by the rows that serving holds against the
trainer's; predicted is what the publisher expects. Only intervals after the warm-up count.

Beside them, for the same rows: fp32, 73 bytes for every row that was touched; int8 per row in a Parquet file, as
TorchEasyRec writes it; and bf16 for every touched row of which bf16 shows a difference. All dense weights count alike.
"""

import io
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.publish.publisher import Publisher, PublishSettings, RowSource, TouchedRows, VersionRange
from pipeline.trainer.tables.table import Table
from pipeline.versions.deltas.quantizer import encode_rows
from pipeline.versions.deltas.served_view import ServedView
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.models.drifting_stream import (
    BATCH,
    DIM,
    HALF_LIFE_S,
    DriftingStream,
    FactorisationMachine,
    Samples,
)

LOSSES = (0.0001, 0.0002, 0.0005)
DEFAULT = 0.0002
RATE, OTHER_RATES = 0.05, (0.025, 0.1)
INTERVAL_S = 600
FP32_BYTES = 73
BF16_BYTES = 8 + 2 * DIM
LEAST_SMALLER, MOST_LOSS, WITHIN = 25.0, 0.02, 2.0


@dataclass(frozen=True)
class Size:
    """Of a run: samples of an interval, intervals of warm-up and after it, by how much fields are smaller."""

    samples: int = 80_000
    warm: int = 16
    counted: int = 30
    scale: int = 1


QUICK = Size(4_000, 3, 3, 100)


class _Rows(RowSource):
    """A table as publishers read it."""

    rounding = None

    def __init__(self, table: Table) -> None:
        self._table = table

    def keys(self) -> np.ndarray:
        return self._table.keys()

    def rows(self, keys: np.ndarray) -> np.ndarray:
        return self._table.rows(keys)


@dataclass
class Way:
    """One publisher, and what was counted of it."""

    publisher: Publisher
    size_bytes: int = 0
    rows: int = 0
    predicted: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)

    def lookup(self, number: int, keys: np.ndarray) -> np.ndarray:
        return self.publisher.views[str(number)].decode(keys)


def measure(folder: Path, quick: bool) -> list[Figure]:
    size, seeds, rates = (QUICK, (1,), ()) if quick else (Size(), (1, 2, 3), OTHER_RATES)
    figures = []
    for loss, runs in _of_seeds(size, seeds, LOSSES, RATE).items():
        figures += _figures(f"loss {loss:g}", loss, runs)
    for rate in rates:
        if rate != 0.05:
            figures += _figures(
                f"learning rate {rate:g}", DEFAULT, _of_seeds(size, seeds[:1], (DEFAULT,), rate)[DEFAULT]
            )
    return figures


@dataclass(frozen=True)
class Outcome:
    """Of one seed: bytes of peers and of a publisher, log loss of serving above the trainer's, predicted, measured."""

    peers: dict[str, int]
    size_bytes: int
    rows: int
    above: float
    predicted: float
    measured: float


def _of_seeds(size: Size, seeds: tuple[int, ...], losses: tuple[float, ...], rate: float) -> dict[float, list[Outcome]]:
    found: dict[float, list[Outcome]] = defaultdict(list)
    for seed in seeds:
        for loss, outcome in _run(size, seed, losses, rate).items():
            found[loss].append(outcome)
    return found


def _run(size: Size, seed: int, losses: tuple[float, ...], rate: float) -> dict[float, Outcome]:
    stream, model = DriftingStream(seed, size.scale), FactorisationMachine(rate)
    ways = {loss: _way(loss, model) for loss in losses}
    peers, own = dict.fromkeys(("fp32", "int8 Parquet", "bf16"), 0), []
    visible = [dict[int, bytes]() for _ in model.tables]
    bias = model.bias
    for interval in range(1, size.warm + size.counted + 1):
        samples, counted = stream.next(size.samples), interval > size.warm
        if counted:
            own.append(_log_loss(model.logits(samples.keys), samples))
        for loss, way in ways.items():
            _score(way, loss, model, samples, bias, counted)
        model.decay(INTERVAL_S)
        model.learn(samples, interval * INTERVAL_S)
        touched, bias = _touched(model), model.bias
        sizes = _peer_bytes(touched, visible)
        peers = {name: peers[name] + counted * each for name, each in sizes.items()}
        for way in ways.values():
            _publish(way, model, touched, interval, counted)
    return {loss: _outcome(way, peers, own) for loss, way in ways.items()}


def _way(loss: float, model: FactorisationMachine) -> Way:
    names = [str(number) for number in range(len(model.tables))]
    rows = {name: _Rows(table) for name, table in zip(names, model.tables, strict=True)}
    return Way(Publisher(PublishSettings(loss, HALF_LIFE_S), rows, {name: ServedView(DIM) for name in names}))


def _score(way: Way, loss: float, model: FactorisationMachine, samples: Samples, bias: float, counted: bool) -> None:
    """What serving loses on new samples, by the truth; the publisher learns it from the first batch, by predictions."""
    first = samples.keys[:BATCH]
    own, served = (model.logits(first), model.logits(first, way.lookup, bias))
    entropy = np.logaddexp(0, own) - own / (1 + np.exp(-own))
    divergence = (own - served) / (1 + np.exp(-own)) + np.logaddexp(0, served) - np.logaddexp(0, own)
    way.publisher.correct(float(divergence.sum() / entropy.sum()))
    if counted:
        way.measured.append(float(divergence.sum() / entropy.sum()))
        way.loss.append(_log_loss(model.logits(samples.keys, way.lookup, bias), samples))


def _touched(model: FactorisationMachine) -> dict[str, TouchedRows]:
    none = np.empty(0, np.uint64)
    keys = [table.drain_changes()[0] for table in model.tables]
    return {str(i): TouchedRows(each, model.tables[i].rows(each), none) for i, each in enumerate(keys)}


def _publish(
    way: Way, model: FactorisationMachine, touched: dict[str, TouchedRows], interval: int, counted: bool
) -> None:
    at_ms = interval * INTERVAL_S * 1000
    versions = VersionRange(0, 0, 1, interval - 1, interval, at_ms - INTERVAL_S * 1000, at_ms)
    dense = np.float32([model.bias]).tobytes()
    prepared = way.publisher.prepare(versions, touched, dense, loss=model.loss)
    if counted:
        way.size_bytes += len(prepared.encoded)
        way.rows += sum(len(change.bits) for change in prepared.delta.fields.values())
        way.predicted.append(prepared.price.predicted)


def _peer_bytes(touched: dict[str, TouchedRows], visible: list[dict[int, bytes]]) -> dict[str, int]:
    rows = sum(len(change.keys) for change in touched.values())
    return {
        "fp32": FP32_BYTES * rows,
        "int8 Parquet": sum(_parquet_bytes(change) for change in touched.values()),
        "bf16": BF16_BYTES * sum(_shown(change, seen) for change, seen in zip(touched.values(), visible, strict=True)),
    }


def _parquet_bytes(change: TouchedRows) -> int:
    codes = encode_rows(np.ascontiguousarray(change.rows["weights"]), "int8")
    values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(codes.shape[1]), len(codes), [None, pa.py_buffer(codes)])
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": change.keys, "row": values}), sink, compression="snappy")
    return sink.tell()


def _shown(change: TouchedRows, seen: dict[int, bytes]) -> int:
    """Rows that differ from what is served as bf16."""
    codes = encode_rows(np.ascontiguousarray(change.rows["weights"]), "bf16")
    new = {key: row.tobytes() for key, row in zip(change.keys.tolist(), codes, strict=True)}
    shown = sum(seen.get(key) != row for key, row in new.items())
    seen |= new
    return shown


def _log_loss(logits: np.ndarray, samples: Samples) -> float:
    return float((np.logaddexp(0, logits) - samples.probability * logits).mean())


def _outcome(way: Way, peers: dict[str, int], own: list[float]) -> Outcome:
    above = float(np.mean(way.loss) / np.mean(own) - 1)
    return Outcome(peers, way.size_bytes, way.rows, above, float(np.mean(way.predicted)), float(np.mean(way.measured)))


def _figures(name: str, loss: float, runs: list[Outcome]) -> list[Figure]:
    smaller = [run.peers["fp32"] / run.size_bytes for run in runs]
    sizes = {"seeds": len(runs), "rows sent": round(float(np.mean([run.rows for run in runs])))}
    sizes |= {
        f"{peer} smaller": round(float(np.mean([run.peers["fp32"] / run.peers[peer] for run in runs])), 2)
        for peer in ("int8 Parquet", "bf16")
    }
    above, ratios = 100 * np.mean([run.above for run in runs]), [run.predicted / run.measured for run in runs]
    judged = loss == DEFAULT and name.startswith("loss")
    return [
        Figure(
            f"published bytes, {name}: smaller than fp32", float(np.mean(smaller)), "x", sizes,
            least=LEAST_SMALLER if judged else None,
        ),
        Figure(
            f"published bytes, {name}: log loss above the trainer's", float(above), "%", {"allowed": 100 * loss},
            most=MOST_LOSS if judged else None,
        ),
        Figure(
            f"published bytes, {name}: predicted over measured loss", float(np.mean(ratios)), "x",
            {"measured %": round(100 * float(np.mean([run.measured for run in runs])), 4)}, most=WITHIN,
        ),
    ]  # fmt: skip
