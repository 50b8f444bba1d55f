"""Bytes of realtime deltas against what serving loses, on a stream that drifts.

A factorisation machine (`drifting_stream`) learns intervals of samples; after each, publishers with different allowed
losses send a delta to views of their own, from the first interval on. What serving loses is the log loss of the samples
of the next interval, before they are learned, under the true probabilities, by the rows that serving holds against the
trainer's; predicted is what the publisher expects. Only intervals after the warm-up count.

Beside them, for the same rows: fp32, 73 bytes for every row that was touched; int8 per row in a Parquet file, as
TorchEasyRec writes it; and bf16 for every touched row of which bf16 shows a difference. All dense weights count alike.
Every row after the last interval is compared in the formats of `springtide export weights`.
"""

import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.publish.levels.level_deltas import ServedVersion, full_delta
from pipeline.publish.publisher import Publisher, PublishSettings, RowSource, TouchedRows, VersionRange
from pipeline.trainer.tables.table import Table
from pipeline.versions.deltas.delta import FieldDelta, encode_delta
from pipeline.versions.deltas.delta_sizes import coded_bytes
from pipeline.versions.deltas.quantizer import encode_rows, payload_offsets
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
from tests.benchmarks.models.row_formats import compare_formats

LOSSES = (0.0001, 0.0002, 0.0005)
DEFAULT = 0.0002
SEEDS = (1, 2, 3, 4, 5)
RATE, OTHER_RATES = 0.05, (0.0125, 0.025, 0.1)
"""The best of these for the trainer's own loss, and the others."""
INTERVAL_S = 600
FP32_BYTES = 73
BF16_BYTES = 8 + 2 * DIM
LEAST_SMALLER, MOST_LOSS, WITHIN, FULL_MOST = 25.0, 0.02, 2.0, 8.0


@dataclass(frozen=True)
class Size:
    """Of a run: samples of ten minutes, intervals of warm-up and after it, by how much fields are smaller, and how many
    intervals make up ten minutes after the warm-up."""

    samples: int = 80_000
    warm: int = 16
    counted: int = 30
    scale: int = 1
    cut: int = 1

    def intervals(self) -> Iterator[tuple[int, float, bool]]:
        """(samples, seconds, whether it counts) of each."""
        yield from repeat((self.samples, INTERVAL_S, False), self.warm)
        yield from repeat((self.samples // self.cut, INTERVAL_S / self.cut, True), self.counted)


QUICK = Size(4_000, 3, 3, 100)
EVERY_SECOND = Size(counted=900, cut=600)


class TableRows(RowSource):
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
    new_bytes: int = 0
    rows: int = 0
    new_rows: int = 0
    predicted: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)

    def lookup(self, number: int, keys: np.ndarray) -> np.ndarray:
        return self.publisher.views[str(number)].decode(keys)


def measure(folder: Path, quick: bool) -> list[Figure]:
    size, seeds, rates = (QUICK, (1,), ()) if quick else (Size(), SEEDS, OTHER_RATES)
    figures = []
    for rate in rates:
        figures += _figures(f"learning rate {rate:g}", DEFAULT, _of_seeds(size, seeds[:1], (DEFAULT,), rate)[DEFAULT])
    for loss, runs in _of_seeds(size, seeds, LOSSES, RATE).items():
        figures += _figures(f"loss {loss:g}", loss, runs)
    if not quick:
        figures += _figures("a delta every second", DEFAULT, _of_seeds(EVERY_SECOND, seeds, (DEFAULT,), RATE)[DEFAULT])
    return figures


@dataclass(frozen=True)
class Full:
    """A full snapshot of every row, and one of the rows that deltas have sent: their sizes over fp32 for every row, and
    the log loss of serving above the trainer's."""

    size: float
    above: float
    served: float
    served_above: float


@dataclass(frozen=True)
class Outcome:
    """Of one seed: bytes of peers and of a publisher, the trainer's log loss, that of serving above it, the same
    without the intervals in which serving had less, predicted, measured, the shares of new keys in rows and bytes, and
    a full after the last interval."""

    peers: dict[str, int]
    size_bytes: int
    rows: int
    own: float
    above: float
    lost: float
    predicted: float
    measured: float
    new_rows: float
    new_bytes: float
    full: Full
    formats: dict[str, tuple[float, float]]
    """By row format, size and loss as of a full."""


def _of_seeds(size: Size, seeds: tuple[int, ...], losses: tuple[float, ...], rate: float) -> dict[float, list[Outcome]]:
    found: dict[float, list[Outcome]] = defaultdict(list)
    for seed in seeds:
        for loss, outcome in _run(size, seed, losses, rate).items():
            found[loss].append(outcome)
    return found


def _run(size: Size, seed: int, losses: tuple[float, ...], rate: float) -> dict[float, Outcome]:
    stream, model = DriftingStream(seed, size.scale), FactorisationMachine(rate)
    ways = {loss: way_of(loss, model) for loss in losses}
    peers, own = dict.fromkeys(("fp32", "int8 Parquet", "bf16"), 0), []
    visible = [dict[int, bytes]() for _ in model.tables]
    bias = model.bias
    at_s = 0.0
    for interval, (count, interval_s, counted) in enumerate(size.intervals(), start=1):
        samples, at_s = stream.next(count, interval_s / INTERVAL_S), at_s + interval_s
        if counted:
            own.append(log_loss(model.logits(samples.keys), samples))
        for way in ways.values():
            score_serving(way, model, samples, bias, counted)
        model.decay(interval_s)
        model.learn(samples, round(at_s))
        touched, bias = touched_rows(model), model.bias
        sizes = _peer_bytes(touched, visible)
        peers = {name: peers[name] + counted * each for name, each in sizes.items()}
        for way in ways.values():
            publish(way, model, touched, (interval, round(1000 * at_s)), counted)
    newer, after = stream.next(size.samples), (interval + 1, round(1000 * at_s))
    formats = _formats(model, newer)
    fulls = {loss: _publish_full(way, model, newer, after) for loss, way in ways.items()}
    return {loss: _outcome(way, peers, own, fulls[loss], formats) for loss, way in ways.items()}


def way_of(loss: float, model: FactorisationMachine) -> Way:
    names = [str(number) for number in range(len(model.tables))]
    rows = {name: TableRows(table) for name, table in zip(names, model.tables, strict=True)}
    return Way(Publisher(PublishSettings(loss, HALF_LIFE_S), rows, {name: ServedView(DIM) for name in names}))


def score_serving(way: Way, model: FactorisationMachine, samples: Samples, bias: float, counted: bool) -> None:
    """What serving loses on new samples, by the truth; the publisher learns it from the first batch, by predictions."""
    first = samples.keys[:BATCH]
    own, served = (model.logits(first), model.logits(first, way.lookup, bias))
    entropy = np.logaddexp(0, own) - own / (1 + np.exp(-own))
    divergence = (own - served) / (1 + np.exp(-own)) + np.logaddexp(0, served) - np.logaddexp(0, own)
    way.publisher.correct(float(divergence.sum() / entropy.sum()))
    if counted:
        way.measured.append(float(divergence.sum() / entropy.sum()))
        way.loss.append(log_loss(model.logits(samples.keys, way.lookup, bias), samples))


def touched_rows(model: FactorisationMachine) -> dict[str, TouchedRows]:
    none = np.empty(0, np.uint64)
    keys = [table.drain_changes()[0] for table in model.tables]
    return {str(i): TouchedRows(each, model.tables[i].rows(each), none) for i, each in enumerate(keys)}


def publish(
    way: Way, model: FactorisationMachine, touched: dict[str, TouchedRows], at: tuple[int, int], counted: bool
) -> int:
    """Send a delta after an interval; returns its bytes."""
    sequence, at_ms = at
    versions = VersionRange(0, 0, 1, sequence - 1, sequence, at_ms, at_ms)
    dense = np.float32([model.bias]).tobytes()
    prepared = way.publisher.prepare(versions, touched, dense, loss=model.loss)
    if counted:
        way.size_bytes += len(prepared.encoded)
        for change in prepared.delta.fields.values():
            way.rows += len(change.bits)
            way.new_rows += len(change.new_keys)
            way.new_bytes += coded_bytes(change) - coded_bytes(_without_new(change))
        way.predicted.append(prepared.price.predicted)
    return len(prepared.encoded)


def _without_new(change: FieldDelta) -> FieldDelta:
    known = len(change.handles)
    payload = change.payload[: payload_offsets(change.bits, change.dim)[known]]
    none32, none64 = np.empty(0, np.uint32), np.empty(0, np.uint64)
    return replace(change, new_keys=none64, new_handles=none32, bits=change.bits[:known], payload=payload)


def _publish_full(way: Way, model: FactorisationMachine, samples: Samples, at: tuple[int, int]) -> Full:
    """Fulls of both kinds, compared with fp32, and what they lose on newer samples."""
    sequence, at_ms = at
    own, dense = log_loss(model.logits(samples.keys), samples), np.float32([model.bias]).tobytes()

    def publish(sequence: int, flush: bool) -> tuple[int, float]:
        versions = VersionRange(0, 0, 1, sequence - 1, sequence, at_ms, at_ms)
        prepared = way.publisher.prepare(versions, {}, dense, loss=model.loss, flush=flush)
        size = len(encode_delta(full_delta(ServedVersion(prepared.delta, way.publisher.views))))
        return size, log_loss(model.logits(samples.keys, way.lookup, model.bias), samples) / own - 1

    (served, served_above), (size, above) = publish(sequence, flush=False), publish(sequence + 1, flush=True)
    fp32 = _fp32_bytes(model)
    return Full(size / fp32, above, served / fp32, served_above)


def _formats(model: FactorisationMachine, samples: Samples) -> dict[str, tuple[float, float]]:
    own, fp32 = log_loss(model.logits(samples.keys), samples), _fp32_bytes(model)
    return {
        format: (size / fp32, log_loss(logits, samples) / own - 1)
        for format, (size, logits) in compare_formats(model, samples).items()
    }


def _fp32_bytes(model: FactorisationMachine) -> int:
    return FP32_BYTES * sum(len(table.keys()) for table in model.tables)


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


def log_loss(logits: np.ndarray, samples: Samples) -> float:
    return float((np.logaddexp(0, logits) - samples.probability * logits).mean())


def _outcome(
    way: Way, peers: dict[str, int], own: list[float], full: Full, formats: dict[str, tuple[float, float]]
) -> Outcome:
    mean, differences = float(np.mean(own)), np.subtract(way.loss, own)
    above, lost = float(differences.mean()) / mean, float(np.maximum(differences, 0).mean()) / mean
    predicted, measured = float(np.mean(way.predicted)), float(np.mean(way.measured))
    new_rows, new_bytes = way.new_rows / max(way.rows, 1), way.new_bytes / max(way.size_bytes, 1)
    return Outcome(
        peers, way.size_bytes, way.rows, mean, above, lost, predicted, measured, new_rows, new_bytes, full, formats
    )  # fmt: skip


def _figures(name: str, loss: float, runs: list[Outcome]) -> list[Figure]:
    smaller = [run.peers["fp32"] / run.size_bytes for run in runs]
    sizes = {"seeds": len(runs), "rows sent": round(float(np.mean([run.rows for run in runs])))}
    sizes |= {
        "new rows %": round(100 * float(np.mean([run.new_rows for run in runs])), 2),
        "their bytes %": round(100 * float(np.mean([run.new_bytes for run in runs])), 2),
    }
    sizes |= {
        f"{peer} smaller": round(float(np.mean([run.peers["fp32"] / run.peers[peer] for run in runs])), 2)
        for peer in ("int8 Parquet", "bf16")
    }
    above, ratios = 100 * np.mean([run.above for run in runs]), [run.predicted / run.measured for run in runs]
    fulls = np.array([astuple(run.full) for run in runs])
    full, lost, served, served_lost = (100 * fulls.mean(axis=0)).round(4).tolist()
    judged = loss == DEFAULT and name.startswith("loss")
    formats = [_format_figure(format, runs) for format in runs[0].formats] if judged else []
    return [
        *formats,
        Figure(
            f"published bytes, {name}: smaller than fp32", float(np.mean(smaller)), "x", sizes,
            least=LEAST_SMALLER if judged else None,
        ),
        Figure(
            f"published bytes, {name}: log loss above the trainer's", float(above), "%",
            {"allowed": 100 * loss, "without gains %": round(100 * float(np.mean([run.lost for run in runs])), 4),
             "trainer's log loss": round(float(np.mean([run.own for run in runs])), 6)},
            most=MOST_LOSS if judged else None,
        ),
        Figure(
            f"published bytes, {name}: predicted over measured loss", float(np.mean(ratios)), "x",
            {"measured %": round(100 * float(np.mean([run.measured for run in runs])), 4)}, most=WITHIN,
        ),
        Figure(
            f"published bytes, {name}: full snapshot over fp32", full, "%",
            {"log loss above %": lost},
            most=FULL_MOST if judged else None,
        ),
        Figure(
            f"published bytes, {name}: full snapshot of served rows over fp32", served, "%",
            {"log loss above %": served_lost}, most=FULL_MOST if judged else None,
        ),
    ]  # fmt: skip


def _format_figure(format: str, runs: list[Outcome]) -> Figure:
    size, above = (100 * np.mean([run.formats[format] for run in runs], axis=0)).round(4).tolist()
    return Figure(
        f"published bytes, every row as {format} in Parquet over fp32", size, "%", {"log loss above %": above}
    )
