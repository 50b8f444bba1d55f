"""A coarse ranker beside the fine one: what it gains over training it alone, and what the fine one pays.

A market with known click probabilities. Each request ranks 200 candidates, drawn by popularity, by an established
ranker: the true logit plus noise of its own for each user and item. It shows ten, the best eight and two of the others
at random; thirty of those not shown are logged with its score. The same log is then learned by

    fine         the fine ranker alone
    coarse       the coarse ranker alone, from impressions
    beside       both in one step, the fine one teaching: soft targets and a term over the list
    candidates   as `beside`, and the logged candidates

The fine ranker also reads a crossed field that the coarse one lacks. The coarse one has small rows of its own, so the
fine one learns what it learns alone. HR@10/100 is measured on newer requests of 100 candidates: the true click
probability of the coarse top 10 over that of all 100, the expected share of clicks there. Processor time is compared
in pairs: arms learn the same piece of the log in turns.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
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
_REQUESTS = 50
"""Of a batch, in every arm: the fine ranker learns the same impressions in the same steps."""
_CHUNK = 500
"""Requests that are made at once."""

MODEL = """
import keras
from keras import layers

def logit(x):
    return layers.Dense(1, bias_initializer=keras.initializers.Constant(-2.5))(x)

def build(inputs):
    outputs = {}
    if "fine" in "PARTS":
        x = layers.Concatenate()([inputs[name] for name in ("user", "item", "cross")])
        for width in (256, 128):
            x = layers.Dense(width, activation="relu")(x)
        outputs["click"] = logit(x)
    if "coarse" in "PARTS":
        user, item = inputs["coarse_user"], inputs["coarse_item"]
        x = layers.Concatenate()([user, item, layers.Multiply()([user, item])])
        outputs["coarse" if "fine" in "PARTS" else "click"] = logit(x)
    return keras.Model(inputs, outputs)
"""
_FIELDS = {
    "fine": [("user", "user", 16), ("item", "item", 16), ("cross", "cross", 16)],
    "coarse": [("coarse_user", "user", 8), ("coarse_item", "item", 8)],
}
"""By ranker its fields: name, column, dim."""
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
    """A market: what a user clicks is known, and what the established ranker believes."""

    random: np.random.Generator
    users: np.ndarray
    items: np.ndarray
    quality: np.ndarray
    popularity: np.ndarray
    liking: np.ndarray
    noise: np.ndarray

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
            random.normal(0, 0.5, (users, items)),
        )

    def requests(self, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """[count, size] users and items of the candidates of some requests."""
        drawn = np.searchsorted(self.popularity, self.random.random((count, size)))
        users = self.random.integers(0, len(self.users), count)
        return np.repeat(users, size).reshape(count, size), np.minimum(drawn, len(self.items) - 1)

    def probability(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Of a click."""
        return _sigmoid(self._logit(user, item))

    def score(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """The established ranker's probability."""
        return _sigmoid(self._logit(user, item) + self.noise[user, item])

    def _logit(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        match = (self.users[user] * self.items[item]).sum(axis=-1)
        return -3.0 + match + self.liking[user % 8, item % 16] + self.quality[item]


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def measure(folder: Path, quick: bool) -> list[Figure]:
    requests, users, items, pieces = (400, 50, 100, 4) if quick else (20_000, 500, 1_000, 40)
    truth = Truth.of(1, users, items)
    log = pa.Table.from_batches(list(_log(truth, requests))).combine_chunks().to_batches()[0]
    shown = log.filter(pa.array(np.array(log.column("kind").to_pylist()) != "candidate"))
    trainers = {name: _trainer(name, folder / name) for name in ARMS}
    spent = _learn_in_turns({name: trainers[name] for name in ARMS if name != "candidates"}, shown, pieces)
    trainers["candidates"].learn(log)
    test = truth.requests(200 if quick else 4_000, LIST)
    found = {name: _reached(name, trainer, truth, test) for name, trainer in trainers.items()}
    sizes = {"requests": requests, "impressions": len(shown), "candidates": len(log) - len(shown)}
    sizes |= {"HR of the truth": 100 * _hit_rate(truth.probability(*test), truth.probability(*test))}
    return [*_quality(found, sizes), _cost(spent)]


@dataclass(frozen=True)
class Arm:
    """What one arm reached: hit rates of the coarse and the fine ranker, NE of the fine one."""

    coarse: float
    fine: float
    ne: float


def _quality(found: dict[str, Arm], sizes: dict[str, Any]) -> list[Figure]:
    alone, fine, beside, both = (found[name] for name in ("coarse", "fine", "beside", "candidates"))
    rates = {f"HR {name}": 100 * arm.coarse for name, arm in found.items() if name != "fine"}
    rates |= {"HR fine": 100 * fine.fine}
    ne = {f"NE {name}": arm.ne for name, arm in found.items() if name != "coarse"}
    with_candidates, without = (100 * (arm.coarse - alone.coarse) for arm in (both, beside))
    moved, with_them = (100 * abs(arm.ne / fine.ne - 1) for arm in (beside, both))
    of_candidates = "cascade, HR@10/100 with candidates over the coarse one alone"
    return [
        Figure(of_candidates, with_candidates, "points", sizes | rates, least=5.0),
        Figure("cascade, HR@10/100 beside the fine one over alone", without, "points", rates),
        Figure("cascade, NE of the fine one beside the coarse one", moved, "%", ne, most=0.02),
        Figure("cascade, NE of the fine one with candidates in its batches", with_them, "%", ne, most=0.02),
    ]


def _cost(spent: dict[str, list[float]]) -> Figure:
    both = [beside / fine for beside, fine in zip(spent["beside"], spent["fine"], strict=True)]
    two = [(fine + coarse) / fine for fine, coarse in zip(spent["fine"], spent["coarse"], strict=True)]
    low, high = np.quantile(both, [0.25, 0.75]).tolist()
    sizes: dict[str, Any] = {"pairs": len(both), "cpu ms a piece of the fine one": 1000 * median(spent["fine"])}
    sizes |= {"lower quartile %": 100 * (low - 1), "upper quartile %": 100 * (high - 1)}
    sizes |= {"two trainers %": 100 * (median(two) - 1)}
    more = 100 * (median(both) - 1)
    return Figure("cascade, processor time of both over the fine one alone", more, "%", sizes, most=25.0)


def _learn_in_turns(
    trainers: dict[str, InMemoryTrainer], samples: pa.RecordBatch, pieces: int
) -> dict[str, list[float]]:
    """Processor time (s) by arm of each piece of the log but the first, which builds the networks."""
    spent: dict[str, list[float]] = {name: [] for name in trainers}
    rows = len(samples) // pieces
    for piece in range(pieces):
        for name in trainers if piece % 2 else reversed(trainers):
            started = time.process_time()
            trainers[name].learn(samples.slice(piece * rows, rows))
            spent[name].append(time.process_time() - started)
    return {name: times[1:] for name, times in spent.items()}


def _log(truth: Truth, requests: int) -> Iterator[pa.RecordBatch]:
    """The samples of the log, a chunk at a time."""
    for first in range(0, requests, _CHUNK):
        user, item = truth.requests(min(_CHUNK, requests - first), RANKED)
        score, best = truth.score(user, item), SHOWN - EXPLORED
        order = np.argsort(-score, axis=1, kind="stable")
        rest = truth.random.permuted(order[:, best:], axis=1)[:, : EXPLORED + LOGGED]
        chosen = np.concatenate([order[:, :best], rest], axis=1)
        columns = [np.take_along_axis(each, chosen, axis=1) for each in (user, item, score)]
        yield _samples(truth, first, columns)


def _samples(truth: Truth, first: int, columns: Sequence[np.ndarray]) -> pa.RecordBatch:
    """Samples of requests `first` and after, from user, item and score, [requests, shown and logged] each."""
    user, item, score = columns
    count, size = user.shape
    n, shown = count * size, np.tile(np.arange(size) < SHOWN, count)
    clicked = truth.random.random(n) < truth.probability(user.ravel(), item.ravel())
    request = np.repeat(first + np.arange(count), size)
    kind = np.where(shown, np.where(clicked, "positive", "negative"), "candidate")
    at_ms, zeros = _START_MS + request * 100, np.zeros(n, np.int32)
    found = {
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
        found |= {f"{source}_{name}": pa.array(values) for name, values in places.items()}
    return pa.RecordBatch.from_pydict(found)


def _features(user: np.ndarray, item: np.ndarray) -> dict[str, pa.Array]:
    return {"user": pa.array(user), "item": pa.array(item), "cross": pa.array(user % 8 * 16 + item % 16)}


def _reached(name: str, trainer: InMemoryTrainer, truth: Truth, test: tuple[np.ndarray, np.ndarray]) -> Arm:
    true, parts = truth.probability(*test), ARMS[name][0].split()
    scores = _scores(trainer, *(each.ravel() for each in test))
    rates = {part: _hit_rate(each.reshape(true.shape), true) for part, each in zip(parts, scores, strict=True)}
    total = trainer.progress.validation()["click"]["total"]
    return Arm(rates.get("coarse", 0.0), rates.get("fine", 0.0), total["normalized_entropy"])


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
    size = SHOWN + LOGGED if "candidates" in events else SHOWN
    # The gradient of dense weights is divided by the batch size: the accumulator keeps their steps as they are without.
    optimizer = {"kind": "adagrad", "initial_accumulator": 0.1 * (SHOWN / size) ** 2}
    fields = [field for part in parts.split() for field in _FIELDS[part]]
    rows = {"kind": "adagrad", "learning_rate": 0.3}
    document = {
        "events": events,
        "samples": {"policy": "close"},
        "labels": [{"name": "click"}, *labels],
        "fields": [{"name": n, "columns": [column], "dim": dim, "optimizer": rows} for n, column, dim in fields],
        "model": {"batch_size": _REQUESTS * size, "learning_rate": 0.05, "optimizer": optimizer},
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
