"""A coarse ranker beside the fine one: what it gains over training it alone, and what the fine one pays.

A market with known click probabilities. Each request ranks 200 candidates, drawn by popularity, with the fine ranker as
trained so far, and shows ten: the best eight and two of the others at random. Thirty of those not shown are logged with
their fine score. The same log is then learned by

    fine         the fine ranker alone
    coarse       the coarse ranker alone, from impressions
    beside       both in one step, the fine one teaching: soft targets and a term over the list
    candidates   as `beside`, and the logged candidates

HR@10/100 is measured on newer requests of 100 candidates: the true click probability of the coarse top 10 over that of
all 100, the expected share of clicks there. The coarse ranker reads rows of the fine one through `stop_gradient`, so
the fine one learns what it learns alone.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.features.pooled_rows import write_pooled_rows
from pipeline.process.clock import SystemClock
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.load.stream import RECORD_ROWS
from tests.support.world.in_memory_trainer import InMemoryTrainer

SHOWN, EXPLORED, LOGGED, RANKED, LIST, TOP = 10, 2, 30, 200, 100, 10
_START_MS = 1_700_000_000_000
_CHUNK = 500
"""Requests that one state of the fine ranker serves."""

MODEL = """
import keras
from keras import layers

def logit(x):
    return layers.Dense(1, bias_initializer=keras.initializers.Constant(-2.5))(x)

def build(inputs):
    outputs = {}
    if "fine" in "PARTS":
        x = layers.Concatenate()([inputs[name] for name in ("user", "item", "cross")])
        for width in (64, 32):
            x = layers.Dense(width, activation="relu")(x)
        outputs["click"] = logit(x)
    if "coarse" in "PARTS":
        read = keras.ops.stop_gradient if "fine" in "PARTS" else (lambda rows: rows)
        user, item = (layers.Dense(8)(read(inputs[name])) for name in ("user", "item"))
        x = layers.Concatenate()([user, item, layers.Multiply()([user, item])])
        outputs["coarse" if "fine" in "PARTS" else "click"] = logit(x)
    return keras.Model(inputs, outputs)
"""
_COARSE = {"name": "coarse", "target": "click", "teacher": "click", "distill": 1.0}
_LISTED = {"list_column": "request", "listwise": 1.0}
ARMS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "fine": ("fine", []),
    "coarse": ("coarse", []),
    "beside": ("fine coarse", [_COARSE | _LISTED]),
    "candidates": ("fine coarse", [_COARSE | _LISTED | {"candidates": True}]),
}
"""By arm, the rankers that it trains and its labels beside the click."""


@dataclass(frozen=True)
class Truth:
    """A market: what a user clicks is known."""

    random: np.random.Generator
    users: np.ndarray
    items: np.ndarray
    quality: np.ndarray
    popularity: np.ndarray
    liking: np.ndarray

    @classmethod
    def of(cls, seed: int, users: int, items: int) -> "Truth":
        random = np.random.default_rng(seed)
        weights = random.permutation(np.arange(1, items + 1) ** -0.7)
        return cls(
            random,
            random.normal(0, 0.8, (users, 4)),
            random.normal(0, 0.8, (items, 4)),
            random.normal(0, 1.0, items),
            np.cumsum(weights / weights.sum()),
            random.normal(0, 0.7, (8, 16)),
        )

    def requests(self, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """[count] users, [count, size] the items of their candidates."""
        drawn = np.searchsorted(self.popularity, self.random.random((count, size)))
        return self.random.integers(0, len(self.users), count), np.minimum(drawn, len(self.items) - 1)

    def probability(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """[n] of a click."""
        match = (self.users[user] * self.items[item]).sum(axis=1) + self.liking[user % 8, item % 16]
        return 1 / (1 + np.exp(3.0 - match - self.quality[item]))


def measure(folder: Path, quick: bool) -> list[Figure]:
    requests, users, items = (600, 100, 200) if quick else (20_000, 2_000, 3_000)
    truth = Truth.of(1, users, items)
    log = pa.Table.from_batches(list(_log(truth, folder / "log", requests))).combine_chunks().to_batches()[0]
    shown = log.filter(pa.array(np.array(log.column("kind").to_pylist()) != "candidate"))
    test = truth.requests(200 if quick else 4_000, LIST)
    found = {name: _arm(name, folder / name, log if name == "candidates" else shown, truth, test) for name in ARMS}
    return _figures(found, {"requests": requests, "impressions": len(shown), "candidates": len(log) - len(shown)})


@dataclass(frozen=True)
class Arm:
    """What one arm reached: hit rates of the coarse and the fine ranker, NE of the fine one, seconds of processor."""

    coarse: float | None
    fine: float | None
    ne: float | None
    cpu_s: float


def _figures(found: dict[str, Arm], sizes: dict[str, Any]) -> list[Figure]:
    alone, fine, beside, both = (found[name] for name in ("coarse", "fine", "beside", "candidates"))
    rates = {f"HR {name}": 100 * arm.coarse for name, arm in found.items() if arm.coarse is not None}
    rates |= {"HR fine": 100 * (fine.fine or 0.0)}
    ne = {f"NE {name}": arm.ne for name, arm in found.items() if name != "coarse"}
    cpu = {f"cpu s {name}": arm.cpu_s for name, arm in found.items()}

    def points(arm: Arm) -> float:
        return 100 * ((arm.coarse or 0.0) - (alone.coarse or 0.0))

    def moved(arm: Arm) -> float:
        return 100 * abs((arm.ne or 0.0) / (fine.ne or 1.0) - 1)

    more = 100 * (beside.cpu_s / fine.cpu_s - 1)
    two = {"two trainers %": 100 * alone.cpu_s / fine.cpu_s}
    return [
        Figure(
            "cascade, HR@10/100 with candidates over the coarse one alone", points(both), "points", sizes | rates, 5.0
        ),
        Figure("cascade, HR@10/100 beside the fine one over alone", points(beside), "points", rates),
        Figure("cascade, NE of the fine one beside the coarse one", moved(beside), "%", ne, most=0.02),
        Figure("cascade, NE of the fine one with candidates in its batches", moved(both), "%", ne),
        Figure("cascade, processor time over the fine one alone", more, "%", cpu | two, most=25.0),
    ]


def _log(truth: Truth, folder: Path, requests: int) -> Iterator[pa.RecordBatch]:
    """The samples of the log, a chunk at a time: the fine ranker learns each before it serves the next."""
    fine, done = _trainer("fine", folder), 0
    while done < requests:
        count = min(_CHUNK, requests - done)
        user, item = truth.requests(count, RANKED)
        users = np.repeat(user, RANKED).reshape(count, RANKED)
        score = _scores(fine, users.ravel(), item.ravel())[0].reshape(count, RANKED)
        order = np.argsort(-score, axis=1, kind="stable")
        best = SHOWN - EXPLORED
        rest = truth.random.permuted(order[:, best:], axis=1)[:, : EXPLORED + LOGGED]
        chosen = np.concatenate([order[:, :best], rest], axis=1)
        columns = (np.take_along_axis(each, chosen, axis=1) for each in (users, item, score))
        samples = _samples(truth, done, *columns)
        fine.learn(samples.filter(pa.array(np.array(samples.column("kind").to_pylist()) != "candidate")))
        yield samples
        done += count


def _samples(truth: Truth, first: int, user: np.ndarray, item: np.ndarray, score: np.ndarray) -> pa.RecordBatch:
    """Samples of requests `first` and after: [requests, shown and logged] each, the impressions first."""
    count, size = user.shape
    n, shown = count * size, np.tile(np.arange(size) < SHOWN, count)
    clicked = truth.random.random(n) < truth.probability(user.ravel(), item.ravel())
    request = np.repeat(first + np.arange(count), size)
    kind = np.where(shown, np.where(clicked, "positive", "negative"), "candidate")
    at_ms, zeros = _START_MS + request * 100, np.zeros(n, np.int32)
    columns = {
        **_features(user.ravel(), item.ravel()),
        "request": pa.array(request),
        "impression_at": pa.array(at_ms),
        "click_at": pa.array(at_ms, mask=~(shown & clicked)),
        "click": pa.array(clicked.astype(np.float32), mask=~shown),
        "weight": pa.array(np.ones(n, np.float32)),
        "rate": pa.array(np.ones(n, np.float32)),
        "kind": pa.array(kind),
        "negative_written": pa.array(np.zeros(n, bool)),
        "candidate_score": pa.array(score.ravel().astype(np.float32), mask=shown),
    }
    for source in ("impression", "click"):
        places = {"partition": zeros, "offset": request * size, "row": zeros}
        columns |= {f"{source}_{name}": pa.array(values) for name, values in places.items()}
    return pa.RecordBatch.from_pydict(columns)


def _features(user: np.ndarray, item: np.ndarray) -> dict[str, pa.Array]:
    return {"user": pa.array(user), "item": pa.array(item), "cross": pa.array(user % 8 * 16 + item % 16)}


def _arm(name: str, folder: Path, samples: pa.RecordBatch, truth: Truth, test: tuple[np.ndarray, np.ndarray]) -> Arm:
    trainer, part = _trainer(name, folder), len(samples) // 20
    trainer.learn(samples.slice(0, part))  # builds the network
    started = time.process_time()
    trainer.learn(samples.slice(part))
    cpu_s = time.process_time() - started
    user, item = test
    users = np.repeat(user, LIST)
    true = truth.probability(users, item.ravel()).reshape(item.shape)
    rates = [_hit_rate(scores.reshape(item.shape), true) for scores in _scores(trainer, users, item.ravel())]
    parts = ARMS[name][0].split()
    reached: dict[str, float] = dict(zip(parts, rates, strict=True))
    total = trainer.progress.validation()["click"]["total"]
    ne = total["normalized_entropy"] if "fine" in parts else None
    return Arm(reached.get("coarse"), reached.get("fine"), ne, cpu_s)


def _hit_rate(scores: np.ndarray, true: np.ndarray) -> float:
    """The expected share of clicks in the top of each list: [lists, samples] each."""
    top = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    return float(np.take_along_axis(true, top, axis=1).sum() / true.sum())


def _trainer(name: str, folder: Path) -> InMemoryTrainer:
    """The trainer of an arm, empty."""
    parts, labels = ARMS[name]
    columns = {"request": "int", "user": "int", "item": "int", "cross": "int"}
    events: dict[str, Any] = {"key": ["request", "item"], "impressions": {"columns": columns}}
    events["clicks"] = {"columns": {"request": "int", "item": "int"}}
    if any(label.get("candidates") for label in labels):
        events["candidates"] = {"columns": columns | {"fine": "float"}, "score": "fine"}
    fields = ("user", "item") if parts == "coarse" else ("user", "item", "cross")
    rows = {"kind": "adagrad", "learning_rate": 0.1}
    document = {
        "events": events,
        "samples": {"policy": "close"},
        "labels": [{"name": "click"}, *labels],
        "fields": [{"name": field, "columns": [field], "dim": 16, "optimizer": rows} for field in fields],
        "model": {"batch_size": 1024, "learning_rate": 0.05},
    }
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL.replace("PARTS", parts))
    return InMemoryTrainer(Project(folder, parse_config(document), SystemClock()), record_rows=RECORD_ROWS)


def _scores(trainer: InMemoryTrainer, user: np.ndarray, item: np.ndarray) -> list[np.ndarray]:
    """[n] by output, the probabilities of n pairs."""
    n = len(user)
    batch = pa.RecordBatch.from_pydict(_features(user, item))
    features = trainer.plan.extract(batch, np.full(n, _START_MS))
    layout, config = trainer.model.layout, trainer.project.config
    inputs = np.empty((n, layout.columns), np.float32)
    write_pooled_rows(config.fields, features.keys, trainer.lookup, layout.starts, inputs)
    return list(trainer.model.predict(inputs).T)
