"""Two towers on the market: Recall@100 of plain in-batch negatives, of log-Q correction, and of mixed negatives.

The trainer learns hours of a market with popular and rare items. Then, for users who click in the next hour, all items
on its shelf are ordered by the product of the vectors. Recall@100: the share of clicks whose item is among the first
100. A click follows from what is shown and from the user's taste. Without correction the product orders items by the
latter alone: the second figure, the share of the 100 items with the highest true click probability among the first 100.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.market.catalogue import Shelf
from pipeline.market.config import MarketConfig
from pipeline.market.market import Market, MarketHour
from pipeline.process.clock import SystemClock
from pipeline.serving.predictor import Predictor
from tests.benchmarks.harness.report import Figure
from tests.support.world.in_memory_trainer import InMemoryTrainer

SEED, FIRST = 7, 100
VARIANTS = {
    "plain in-batch": {"log_q": False},
    "log-Q": {},
    "log-Q and mixed negatives": {"negatives": 256},
}
MODEL = """
import keras
from keras import layers

def tower(rows):
    joined = layers.Concatenate()(rows)
    return layers.Dense(16)(layers.Concatenate()([joined, layers.Dense(32, activation="relu")(joined)]))

def build(inputs):
    user = tower([inputs["user"], inputs["interests"]])
    return keras.Model(inputs, {"user": user, "item": tower([inputs["item"], inputs["category"]])})
"""
SETTINGS = """
[events]
key = ["id"]
impressions.columns = { id = "int", user = "string", item = "string", category = "string", interests = "strings" }
clicks.columns = { id = "int" }
[model]
batch_size = 512
learning_rate = 0.05
"""
FIELDS = ("user", "item", "category", "interests")


def measure(folder: Path, quick: bool) -> list[Figure]:
    hours, sizes = (2, {"items": 300, "users": 200, "impressions_per_hour": 4_000}) if quick else (
        10, {"items": 4_000, "users": 3_000, "impressions_per_hour": 60_000})  # fmt: skip
    market = Market(SEED, MarketConfig(hours=hours + 1, **sizes))
    learned, newest = [market.events(hour) for hour in range(hours)], market.events(hours)
    sized = {**sizes, "hours": hours, "clicks": int(newest.truth.clicked.sum())}
    figures, plain = (
        [Figure("two towers, recall at 100, most clicked items", _of_popularity(learned, newest), "", sized)],
        None,
    )
    for name, towers in VARIANTS.items():
        trainer = _trained(folder / name.replace(" ", "-"), towers, learned)
        found, best = _recall(trainer, market, newest)
        figures.append(Figure(f"two towers, recall at 100, {name}", found, "", sized))
        figures.append(Figure(f"two towers, recall at 100 of the likeliest clicks, {name}", best, "", sized))
        plain = plain or found
    gain = 100 * (found / plain - 1) if plain else 0.0
    return [
        *figures,
        Figure("two towers, recall of log-Q and mixed negatives over plain", gain, "%", sized, least=10.0),
    ]


def _trained(folder: Path, towers: dict, hours: list[MarketHour]) -> InMemoryTrainer:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    optimizer = {"kind": "adagrad", "learning_rate": 0.1}
    fields = [{"name": n, "columns": [n], "dim": 16, "pooling": "mean", "optimizer": optimizer} for n in FIELDS]
    given = {"item_column": "item", "temperature": 0.1, "normalise": True, **towers}
    label = {"name": "label", "loss": "in_batch", "towers": given}
    config = parse_config({**tomllib.loads(SETTINGS), "fields": fields, "labels": [label]})
    trainer = InMemoryTrainer(Project(folder, config, SystemClock()))
    for hour in hours:
        trainer.learn(samples_of(hour))
        trainer.inputs.clear()
    return trainer


def samples_of(hour: MarketHour, names: Sequence[str] = FIELDS) -> pa.RecordBatch:
    """The impressions of an hour, each once, with the click that each will have."""
    ids = hour.impressions.column("id").to_numpy()
    _, once = np.unique(ids, return_index=True)
    once = np.sort(once[np.isin(ids[once], hour.truth.id)])
    rows, order = hour.impressions.take(pa.array(once)), np.argsort(hour.truth.id)
    clicked = hour.truth.clicked[order][np.searchsorted(hour.truth.id[order], ids[once])]
    n, at_ms = len(once), rows.column("at").cast(pa.int64())
    ones, zeros = np.ones(n, np.float32), np.zeros(n, np.int32)
    columns = {name: rows.column(name) for name in ("id", *names)} | {
        "impression_at": at_ms,
        "click_at": pa.array(at_ms.to_numpy() + 10, mask=~clicked),
        "label": clicked.astype(np.float32),
        "weight": ones,
        "rate": ones,
        "kind": pa.array(np.where(clicked, "positive", "negative")),
        "negative_written": pa.array(np.zeros(n, bool)),
    }
    for side in ("impression", "click"):
        columns |= {f"{side}_partition": zeros, f"{side}_offset": np.arange(n), f"{side}_row": zeros}
    return pa.RecordBatch.from_pydict(columns)


def _of_popularity(learned: list[MarketHour], newest: MarketHour) -> float:
    """The share of clicks on one of the items with most clicks so far: the same items for all users."""
    clicked = [_clicked_items(hour) for hour in (*learned, newest)]
    items, counts = np.unique(np.concatenate(clicked[:-1]), return_counts=True)
    return float(np.isin(clicked[-1], items[np.argsort(-counts, kind="stable")[:FIRST]]).mean())


def _clicked_items(hour: MarketHour) -> np.ndarray:
    samples = samples_of(hour)
    return np.array(samples.filter(pa.array(samples.column("label").to_numpy() > 0)).column("item").to_pylist())


def _recall(trainer: InMemoryTrainer, market: Market, hour: MarketHour) -> tuple[float, float]:
    """The share of clicks whose item is among the first, and that of the items with the likeliest clicks."""
    samples, shelf = samples_of(hour), market._catalogue.at(hour.hour)
    clicked = samples.filter(pa.array(samples.column("label").to_numpy() > 0))
    items = _vectors(trainer, [_instance(shelf, place) for place in range(len(shelf.item))])[1]
    users = _vectors(trainer, clicked.select(["user", "interests"]).to_pylist())[0]
    scores = users @ items.T
    chosen = np.argpartition(-scores, FIRST, axis=1)[:, :FIRST]
    places = {f"i{item}": place for place, item in enumerate(shelf.item.tolist())}
    own = np.array([places.get(item, -1) for item in clicked.column("item").to_pylist()])
    number = [int(user[1:]) for user in clicked.column("user").to_pylist()]
    likely = _likeliest(market, shelf, number)
    share = np.mean([len(np.intersect1d(a, b)) for a, b in zip(chosen, likely, strict=True)]) / FIRST
    return float((chosen == own[:, None]).any(axis=1).mean()), float(share)


def _likeliest(market: Market, shelf: Shelf, users: list[int]) -> np.ndarray:
    """[users, FIRST] the places with the highest true click probability at the start of the hour."""
    taste = market.config.taste * market._users.taste[users] @ shelf.factors.T
    worth = shelf.appeal - 0.2 * np.log(shelf.price / 20) + taste
    return np.argpartition(-worth, FIRST, axis=1)[:, :FIRST]


def _instance(shelf: Shelf, place: int) -> dict[str, str]:
    return {"item": f"i{shelf.item[place]}", "category": f"c{shelf.category[place]}"}


def _vectors(trainer: InMemoryTrainer, instances: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """[n, dim] each: those of the query and of the item."""
    predictor = Predictor(trainer.project.config, trainer.project.root)
    predictor.load(trainer.model.serving_bytes())
    found = predictor.predict(predictor.features(instances, 0), trainer.lookup)
    dim = (found.shape[1] - 1) // 2
    return found[:, 1 : 1 + dim], found[:, 1 + dim :]
