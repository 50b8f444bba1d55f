"""Training for few bits on the market: what log loss rows cost that training reads as serving holds them.

Every quarter of an hour, the model that has learned everything before predicts the impressions of the next; log loss is
that under their true click probabilities, so that it is free of the noise of clicks. All ways learn the same samples.
Full precision is compared with the same rows rounded after training, and with rows trained for so many bits. Tables of
dim 8 are rounded; those of dim 1 have 8 bits in all ways. "Half the rows" are those below the median importance that
each table has at full precision. The learning rate of rows is swept for each way on a market of its own.
"""

import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.features.pooled_rows import write_pooled_rows
from pipeline.market.config import MarketConfig
from pipeline.market.market import Market, MarketHour
from pipeline.process.clock import SystemClock
from pipeline.versions.deltas.coded_rows import ChangedRows, code_rows
from pipeline.versions.deltas.rounding import RowRounding
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.models.two_towers import samples_of
from tests.support.world.in_memory_trainer import InMemoryTrainer

COLUMNS = ("user", "item", "category", "position", "price", "interests")
WIDE = ("user", "item", "interests", "category")
"""Tables of dim 8."""
FULL, HALF = "full precision", "trained: ternary on half the rows"
TRAINED: dict[str, Any] = {
    "trained: 8 bits": 8,
    "trained: 4 bits": 4,
    "trained: 2 bits": 2,
    "trained: ternary": "ternary",
    "trained: 1 bit": 1,
}
AFTERWARDS: dict[str, Any] = {
    f"rounded afterwards: {name.removeprefix('trained: ')}": bits for name, bits in TRAINED.items()
}
MOST = {"trained: 4 bits": 0.005, HALF: 0.03}
"""Targets, in % of the log loss."""
STEP_MS = 900_000
RATES = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Step:
    """The samples of a quarter of an hour and their true click probabilities."""

    samples: pa.RecordBatch
    probability: np.ndarray


@dataclass
class Loss:
    """Log loss under the true probabilities."""

    total: float = 0.0
    count: int = 0

    def add(self, predicted: np.ndarray, probability: np.ndarray) -> None:
        likely = np.clip(predicted.astype(np.float64), 1e-7, 1 - 1e-7)
        self.total -= float((probability * np.log(likely) + (1 - probability) * np.log1p(-likely)).sum())
        self.count += len(likely)

    @property
    def mean(self) -> float:
        return self.total / self.count


@dataclass
class Learned:
    """A trainer at the end of the market, and the log loss of each way to read its rows."""

    trainer: InMemoryTrainer
    losses: dict[str, Loss] = field(default_factory=lambda: defaultdict(Loss))


def measure(folder: Path, quick: bool) -> list[Figure]:
    seeds, hours, per_hour = (1, 2, 2_000) if quick else (5, 10, 30_000)
    trained = {"trained: 4 bits": 4} if quick else TRAINED
    rates = dict.fromkeys((FULL, *TRAINED, HALF), 1.0) if quick else _swept(folder / "swept", hours, per_hour)
    found: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, dict[str, float]] = {}
    for seed in range(1, seeds + 1):
        steps = list(_steps(seed, hours, per_hour))
        for name, learned in _ways(folder / str(seed), steps, rates, trained):
            for way, loss in learned.losses.items():
                found[way].append(loss.mean)
                print(f"  seed {seed}: {way} log loss {loss.mean:.6f}", flush=True)
            sizes[name] = {
                "bytes a row": _bytes_per_row(learned.trainer),
                "rows rounded": _rounded_share(learned.trainer),
            }
    return [_figure(way, found, sizes, rates, hours * per_hour) for way in found if way != FULL]


def _figure(
    way: str, found: Mapping[str, list[float]], sizes: Mapping[str, Any], rates: Mapping[str, float], samples: int
) -> Figure:
    above = 100 * (np.array(found[way]) / np.array(found[FULL]) - 1)
    sized = {"samples": samples, "seeds": len(above), "deviation over seeds": round(float(above.std()), 4)}
    sized |= {"learning rate": rates.get(way, rates[FULL]), **sizes.get(way, {})}
    value = float(above.mean())
    return Figure(f"few bits, log loss above full precision, {way}", value, "%", sized, most=MOST.get(way))


def _swept(folder: Path, hours: int, per_hour: int) -> dict[str, float]:
    """By way of training, the factor of the learning rates of rows with the least log loss."""
    steps, losses = list(_steps(0, hours, per_hour)), defaultdict[str, dict[float, float]](dict)
    for rate in RATES:
        factors = dict.fromkeys((FULL, *TRAINED, HALF), rate)
        for name, learned in _ways(folder / str(rate), steps, factors, TRAINED, afterwards=False):
            losses[name][rate] = learned.losses[name].mean
            print(f"  sweep: {name}, learning rate x {rate:g}: log loss {losses[name][rate]:.6f}", flush=True)
    return {name: min(each, key=lambda rate: each[rate]) for name, each in losses.items()}


def _ways(
    folder: Path, steps: list[Step], rates: Mapping[str, float], trained: Mapping[str, Any], afterwards: bool = True
) -> Iterator[tuple[str, Learned]]:
    """Every way of training; the rows of the first are also read rounded."""
    full = _learn(folder / "full", FULL, {}, rates[FULL], steps, AFTERWARDS if afterwards else {})
    yield FULL, full
    medians = {name: _median_importance(full.trainer, name) for name in WIDE}
    for name, bits in trained.items():
        quantised = {each: {"quantise": bits} for each in WIDE}
        yield name, _learn(folder / str(bits), name, quantised, rates[name], steps)
    half = {name: {"quantise": "ternary", "quantise_below": median} for name, median in medians.items()}
    yield HALF, _learn(folder / "half", HALF, half, rates[HALF], steps)


def _learn(
    root: Path,
    name: str,
    settings: Mapping[str, Any],
    rate: float,
    steps: list[Step],
    afterwards: Mapping[str, Any] = MappingProxyType({}),
) -> Learned:
    learned = Learned(InMemoryTrainer(_project(root, settings, rate), record_rows=8_192))
    for number, step in enumerate(steps):
        if number:
            learned.losses[name].add(_predicted(learned.trainer, step.samples, {}), step.probability)
            for way, bits in afterwards.items():
                roundings = dict.fromkeys(WIDE, RowRounding(bits))
                learned.losses[way].add(_predicted(learned.trainer, step.samples, roundings), step.probability)
        learned.trainer.learn(step.samples)
        learned.trainer.inputs.clear()
    return learned


def _project(root: Path, settings: Mapping[str, Any], rate: float) -> Project:
    """The market's project with settings for the wide tables, 8 bits for the others, and other learning rates."""
    files = resources.files("pipeline.market") / "project"
    document = tomllib.loads((files / "springtide.toml").read_text(encoding="utf-8"))
    for each in document["fields"]:
        each["optimizer"]["learning_rate"] *= rate
        each |= settings.get(each["name"], {}) if each["name"] in WIDE else {"quantise": 8}
    root.mkdir(parents=True)
    (root / "model.py").write_text((files / "model.py").read_text(encoding="utf-8"), encoding="utf-8")
    return Project(root, parse_config(document), SystemClock())


def _steps(seed: int, hours: int, per_hour: int) -> Iterator[Step]:
    """The impressions of a market in order of time, each once, with the click that each will have."""
    faults = dict.fromkeys(("late_share", "duplicate_share", "orphan_share", "misdated_per_hour", "poison_per_hour"), 0)
    market = Market(seed, MarketConfig(hours=hours, impressions_per_hour=per_hour, **faults))
    for hour in range(hours):
        events = market.events(hour)
        samples = samples_of(events, COLUMNS)
        at_ms = samples.column("impression_at").to_numpy()
        order = np.argsort(at_ms, kind="stable")
        samples, at_ms = samples.take(pa.array(order)), at_ms[order]
        probability = _probability_of(events, samples.column("id").to_numpy())
        ends = np.searchsorted(at_ms, market.end_at_ms(hour) - STEP_MS * np.arange(3, -1, -1))
        for first, end in zip([0, *ends[:-1]], [*ends[:-1], len(at_ms)], strict=True):
            yield Step(samples.slice(first, end - first), probability[first:end])


def _probability_of(events: MarketHour, ids: np.ndarray) -> np.ndarray:
    order = np.argsort(events.truth.id)
    return events.truth.probability[order[np.searchsorted(events.truth.id[order], ids)]]


def _predicted(trainer: InMemoryTrainer, samples: pa.RecordBatch, others: Mapping[str, RowRounding]) -> np.ndarray:
    """[n] probabilities, from rows as training reads them; those of some tables rounded in another way."""

    def lookup(name: str, keys: np.ndarray) -> np.ndarray:
        table = trainer.tables.by_name[name]
        rounding, weights = others.get(name, table.rounding), table.table.lookup(keys)
        importance = np.ascontiguousarray(table.table.statistics(keys)["importance"])
        return weights if rounding is None else rounding.rounded(weights, importance)

    config, layout = trainer.project.config, trainer.model.layout
    features = trainer.plan.extract(samples, samples.column("impression_at").to_numpy())
    inputs = np.empty((samples.num_rows, layout.columns), np.float32)
    write_pooled_rows(config.fields, features.keys, lookup, layout.starts, inputs)
    inputs[:, layout.dense_start :] = features.dense
    trainer.model.scale(inputs)
    return trainer.model.predict(inputs)[:, 0]


def _median_importance(trainer: InMemoryTrainer, name: str) -> float:
    table = trainer.tables.by_name[name].table
    return max(float(np.median(table.statistics(table.keys())["importance"])), 1e-9)


def _rounded_share(trainer: InMemoryTrainer) -> float:
    """The share of the rows of wide tables that are rounded."""
    rounded, rows = 0, 0
    for name in WIDE:
        table = trainer.tables.by_name[name]
        importance = np.ascontiguousarray(table.table.statistics(table.table.keys())["importance"])
        rounded += 0 if table.rounding is None else int(table.rounding.applies(importance).sum())
        rows += len(importance)
    return round(rounded / rows, 3)


def _bytes_per_row(trainer: InMemoryTrainer) -> float:
    """Of a row of the wide tables in a full snapshot, key and handle included; of rounded rows only."""
    coded = rows = 0
    for name in WIDE:
        table = trainer.tables.by_name[name]
        if table.rounding is None:
            continue
        keys = table.table.keys()
        packed = table.table.rows(keys)
        chosen = table.rounding.applies(np.ascontiguousarray(packed["importance"]))
        payload = table.rounding.encode(packed["weights"][chosen]).ravel()
        new = keys[chosen]
        none, handles = np.empty(0, np.uint32), np.arange(len(new), dtype=np.uint32)
        bits = np.full(len(new), table.rounding.bits, np.uint8)
        changed = ChangedRows(none, np.empty(0, np.bool_), new, handles, bits, payload, np.empty(0, np.uint64))
        coded += len(code_rows(changed, table.table.dim))
        rows += len(new)
    return round(coded / rows, 2) if rows else 0.0
