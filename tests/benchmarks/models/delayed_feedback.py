"""Delayed feedback: what each policy and correction reaches on a market whose click probabilities are known.

The delays have the quantiles that Chapelle (2014, "Modeling delayed feedback in display advertising") reports for
Criteo's conversions, 240 times as fast: 35 % of the events come within an hour (15 s here), half within a day (6 min),
87 % within two weeks (1.4 h), all within 30 days (3 h). Those of half of the categories are slower, those of the others
faster: a configured late share cannot express that. The join makes the samples. Every five minutes of the stream, the
model that has learned what was decided by then predicts the impressions of the next five, as in the papers' streaming
protocol. Log loss, NE, AUC and calibration are those under the true probabilities, from the first hour on in which all
policies have samples.

The oracle gets every label without delay. The gap is that of log loss between it and fake negatives without weights.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.features.pooled_rows import write_pooled_rows
from pipeline.ingest.event_writer import EventWriter, append_heartbeat
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import read_to_end
from pipeline.logs.open import open_log
from pipeline.market.config import MarketConfig
from pipeline.market.market import HOUR_MS, Market
from pipeline.process.clock import SystemClock
from pipeline.samples.run.in_process import run_samples
from pipeline.trainer.validation.binary_scores import BinaryMetrics, BinarySums, binary_scores
from tests.benchmarks.harness.report import Figure
from tests.support.world.in_memory_trainer import InMemoryTrainer

_SPEED = 240
_QUANTILES = {0.0: 0.01, 0.35: 1.0, 0.5: 24.0, 0.87: 14 * 24.0, 1.0: 30 * 24.0}
"""Hours within which a share of the events comes; log-uniform in between."""
_WINDOW_S, _ALL_S = 24 * 3_600 / _SPEED, 30 * 24 * 3_600 / _SPEED
_STEP_MS = 300_000
_MODEL = """
import keras
from keras import layers
def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    x = layers.Concatenate()([x, layers.Dense(16, activation="relu")(x)])
    bias = keras.initializers.Constant(-2)
    estimated = keras.ops.stop_gradient(x)
    def output(name):
        return layers.Dense(1, bias_initializer=bias)(x if name == "clicked" else estimated)
    return keras.Model(inputs, {name: output(name) for name in NAMES})
"""
_ESTIMATES = ({"name": "later", "target": "clicked", "estimates": "delayed_positive"},
              {"name": "fake", "target": "clicked", "estimates": "fake_negative"})  # fmt: skip


@dataclass(frozen=True)
class Policy:
    """A way to learn from delayed events.

    Attributes:
        name: as in the papers.
        samples: the policy of the join.
        window_s: attribution window; the horizon ends with the last event.
        label: settings of the label.
        estimates: whether two further outputs estimate the late share.
        early: whether every sample is decided at its impression.
    """

    name: str
    samples: str
    window_s: float = _WINDOW_S
    label: dict[str, Any] = field(default_factory=dict)
    estimates: bool = False
    early: bool = False

    def document(self) -> dict[str, Any]:
        """The configuration."""
        label = {"name": "clicked", **self.label}
        columns = {"id": "int", "user": "string", "item": "string", "category": "string", "position": "int"}
        fields = [{"name": n, "columns": [n], "dim": 8} for n in ("user", "item", "category", "position")]
        samples = {"window_s": self.window_s, "horizon_s": _ALL_S - self.window_s, "policy": self.samples}
        return {
            "logs": {"partitions": 1, "shards": 1},
            "events": {
                "key": ["id"], "disorder_s": 0.0, "max_ahead_s": None,
                "impressions": {"columns": columns}, "clicks": {"columns": {"id": "int"}},
            },
            "samples": samples,
            "labels": [label, *(_ESTIMATES if self.estimates else ())],
            "fields": fields,
            "model": {"batch_size": 256, "learning_rate": 0.02},
        }  # fmt: skip


UNWEIGHTED, ORACLE = "fake negatives, no weights", "oracle without delay"
CONFIGURED, LEARNED = "ES-DFM, configured", "ES-DFM, learned"


def policies(late_share: float) -> tuple[Policy, ...]:
    """Those compared; `late_share` is that of all positives."""
    importance = {"correction": "importance"}
    return (
        Policy("fake negatives, calibrated (FNC)", "fake_negative", label={"correction": "calibration"}),
        Policy("fake negatives, weighted (FNW)", "fake_negative", label=importance),
        Policy("fake negatives, taken back", "fake_negative"),
        Policy("window, taken back", "wait"),
        Policy(CONFIGURED, "wait", label=importance | {"late_share": late_share}),
        Policy(LEARNED, "wait", label=importance, estimates=True),
        Policy("wait for all", "wait", window_s=_ALL_S),
        Policy(ORACLE, "wait", window_s=_ALL_S, early=True),
    )


@dataclass(frozen=True)
class Stream:
    """Impressions in order of time, [n] rows, with the truth."""

    impressions: pa.RecordBatch
    probability: np.ndarray
    clicks: pa.RecordBatch
    late_share: float

    @property
    def at_ms(self) -> np.ndarray:
        return self.impressions.column("at").to_numpy()


def measure(folder: Path, quick: bool) -> list[Figure]:
    seeds, hours, per_hour = (1, 5, 250) if quick else (3, 8, 12_000)
    found: dict[str, list[BinaryMetrics]] = defaultdict(list)
    for seed in range(1, seeds + 1):
        stream = _stream(seed, hours, per_hour)
        for number, policy in enumerate(policies(stream.late_share)):
            root = folder / f"{seed}-{number}"
            for name, metrics in _compare(root, policy, stream).items():
                found[name].append(metrics)
            print(f"  seed {seed}: {policy.name} log loss {found[policy.name][-1].log_loss:.5f}", flush=True)
    return _figures({name: metrics for name, metrics in found.items() if metrics})


def _figures(found: dict[str, list[BinaryMetrics]]) -> list[Figure]:
    def mean(name: str, metric: str) -> float:
        return float(np.mean([getattr(metrics, metric) for metrics in found[name]]))

    worst, best = mean(UNWEIGHTED, "log_loss"), mean(ORACLE, "log_loss")
    figures = []
    for name, metrics in sorted(found.items(), key=lambda item: mean(item[0], "log_loss")):
        losses = [each.log_loss for each in metrics]
        sizes = {each: round(mean(name, each), 4) for each in ("normalized_entropy", "auc", "calibration")}
        sizes |= {"log loss": round(mean(name, "log_loss"), 5), "deviation over seeds": round(float(np.std(losses)), 5)}
        closed = 100 * (worst - mean(name, "log_loss")) / (worst - best)
        least = 50.0 if name in (CONFIGURED, LEARNED) else None
        figures.append(Figure(f"delayed feedback, gap closed: {name}", closed, "%", sizes, least=least))
    return figures


def _stream(seed: int, hours: int, per_hour: int) -> Stream:
    faults = dict.fromkeys(("late_share", "duplicate_share", "orphan_share", "misdated_per_hour", "poison_per_hour"), 0)
    sizes = {"hours": hours, "impressions_per_hour": per_hour, "click_rate": 0.15, "items": 300, "users": 2_000}
    market = Market(seed, MarketConfig(**sizes, **faults))
    found = [market.events(hour) for hour in range(hours)]
    shown = pa.Table.from_batches([each.impressions for each in found]).sort_by(
        [("at", "ascending"), ("id", "ascending")]
    )
    shown = shown.select(["at", "id", "user", "item", "category", "position"]).combine_chunks().to_batches()[0]
    ids = np.concatenate([each.truth.id for each in found])
    place = np.argsort(ids)[np.searchsorted(np.sort(ids), shown.column("id").to_numpy())]
    clicked = np.concatenate([each.truth.clicked for each in found])[place]
    category = shown.column("category").dictionary_encode().indices.to_numpy()
    delay_ms = _delays_ms(np.random.default_rng([seed, 9]), category % 2 == 1)
    order = np.flatnonzero(clicked)
    at_ms = shown.column("at").to_numpy()[order] + delay_ms[order]
    by_time = np.argsort(at_ms, kind="stable")
    clicks = pa.record_batch({"at": at_ms[by_time], "id": shown.column("id").take(pa.array(order[by_time]))})
    probability = np.concatenate([each.truth.probability for each in found])[place]
    return Stream(shown, probability, clicks, float((delay_ms[order] >= 1000 * _WINDOW_S).mean()))


def _delays_ms(random: np.random.Generator, slow: np.ndarray) -> np.ndarray:
    """[n] the smaller of two draws for a fast impression, the larger for a slow one: together, the quantiles."""
    draws = np.sort(random.random((len(slow), 2)), axis=1)
    share = np.where(slow, draws[:, 1], draws[:, 0])
    hours = np.exp(np.interp(share, list(_QUANTILES), np.log(list(_QUANTILES.values()))))
    return np.minimum(hours * HOUR_MS / _SPEED, 1000 * _ALL_S - 1).astype(np.int64)


def _compare(root: Path, policy: Policy, stream: Stream) -> dict[str, BinaryMetrics]:
    """The metrics of the policy; fake negatives that are calibrated are also read without calibration."""
    names = ["clicked", *(each["name"] for each in _ESTIMATES if policy.estimates)]
    samples = _joined(root / "join", policy, stream)
    project = Project(root / "train", parse_config(policy.document()), SystemClock())
    project.root.mkdir(parents=True)
    (project.root / "model.py").write_text(_MODEL.replace("NAMES", repr(names)))
    trainer, from_ms = InMemoryTrainer(project), int(stream.at_ms[0]) + 1000 * int(_ALL_S) + HOUR_MS
    sums: dict[str, BinarySums] = defaultdict(BinarySums)
    for part, shown in _steps(policy, samples, stream):
        if part.num_rows:
            trainer.learn(part)
        at_ms = shown.impressions.column("at").to_numpy()
        if len(at_ms) and at_ms[0] >= from_ms:
            for name, predicted in _predictions(trainer, policy, shown.impressions).items():
                logits = np.log(predicted) - np.log1p(-predicted)
                sums[name].add(binary_scores(logits, shown.probability, 1 - shown.probability))
    return {name: each.metrics() for name, each in sums.items()}


def _joined(root: Path, policy: Policy, stream: Stream) -> pa.Table:
    """The samples of the join, in its order."""
    project = Project(root, parse_config(policy.document()), SystemClock())
    root.mkdir(parents=True)
    log = open_log(project)
    EventWriter(project, log, "impressions").append(stream.impressions)
    EventWriter(project, log, "clicks").append(stream.clicks)
    append_heartbeat(project, log, int(stream.at_ms[-1]) + 3 * 1000 * int(_ALL_S))
    run_samples(project, log, until_end=True)
    records = [record for run in read_to_end(log, project.config.topics.samples, 0) for record in run]
    log.close()
    return pa.Table.from_batches([decode_sample_block(record.value).batch for record in records])


def _decided_ms(policy: Policy, samples: pa.Table) -> np.ndarray:
    """[n] when the join decided each sample."""
    shown_ms, clicked_ms = (
        samples.column(name).fill_null(0).to_numpy().astype(np.int64) for name in ("impression_at", "click_at")
    )
    if policy.early:
        return shown_ms
    closed_ms = shown_ms + (0 if policy.samples == "fake_negative" else round(1000 * policy.window_s))
    positive = samples.column("kind").to_numpy() == "positive"
    return np.where(positive, clicked_ms, np.maximum(clicked_ms, closed_ms))


def _steps(policy: Policy, samples: pa.Table, stream: Stream) -> Iterator[tuple[pa.RecordBatch, Stream]]:
    """By five minutes: the samples decided in them, and the impressions of the next."""
    decided_ms = _decided_ms(policy, samples)
    order = np.argsort(decided_ms, kind="stable")
    (ordered,), decided_ms = samples.take(pa.array(order)).combine_chunks().to_batches(), decided_ms[order]
    for start_ms in range(int(stream.at_ms[0]), int(stream.at_ms[-1]), _STEP_MS):
        low, high = np.searchsorted(decided_ms, [start_ms, start_ms + _STEP_MS])
        first, last = np.searchsorted(stream.at_ms, [start_ms + _STEP_MS, start_ms + 2 * _STEP_MS])
        shown = stream.impressions.slice(first, last - first)
        yield (
            ordered.slice(low, high - low),
            replace(stream, impressions=shown, probability=stream.probability[first:last]),
        )


def _predictions(trainer: InMemoryTrainer, policy: Policy, shown: pa.RecordBatch) -> dict[str, np.ndarray]:
    """By name of the policy, [n] float64 probabilities."""
    config, layout = trainer.project.config, trainer.model.layout
    features = trainer.plan.extract(shown, shown.column("at").to_numpy())
    inputs = np.empty((shown.num_rows, layout.columns), np.float32)
    write_pooled_rows(config.fields, features.keys, trainer.lookup, layout.starts, inputs)
    trainer.model.scale(inputs)
    predicted = np.clip(trainer.model.predict(inputs)[:, 0].astype(np.float64), 1e-7, 1 - 1e-7)
    found = {policy.name: predicted}
    if policy.label.get("correction") == "calibration":
        found[UNWEIGHTED] = predicted / (1 + predicted)
    return found
