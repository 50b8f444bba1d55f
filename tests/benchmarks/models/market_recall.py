"""Recall on the market, whose click probabilities are known: what a scorer after the scan finds, and what a tree finds.

A model with two towers and a scorer, with attention over the interests a user has declared, learns hours of the market.
Then, for some users, 200 of all items are found. Recall@200: the share of the 200 items with the highest true click
probability among them. The arms:

    two towers        the largest products of all items, exact
    scan and scorer   the largest products, of which the best by the scorer; `recall.scorer` in a replica
    tree, trained     a flattened tree: k-means of the item vectors, sixteen items a node. The scorer scores all nodes
                      of the first layer, then the items below the best of them. A node is a key in the table of items,
                      and learns every impression of an item below it beside the item.
    tree, means       the same, with the mean of what its items decide as that of a node
    tree, product     `recall.tree` in a replica: balanced clusters of the item vectors, and means as above

Processor time is that of a request for one user, with its vectors and inputs at hand. The beams of the trees are as
wide as the processor time of the scan and its scorer allows. Towers have no log-Q correction here: with it, the product
orders by popularity too, and finds fewer of the items that are clicked if shown.
"""

import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.configuration.config import parse_config
from pipeline.configuration.deployment.recall import Tree as RecallTree
from pipeline.configuration.project import Project
from pipeline.market.config import MarketConfig
from pipeline.market.market import Market
from pipeline.process.clock import SystemClock
from pipeline.recall.scan_index import ScanIndex
from pipeline.serving.items.attributes import Allowed
from pipeline.serving.items.embedder import EmbeddedItems
from pipeline.serving.items.item_index import Users
from pipeline.serving.items.scorer import Scorer
from pipeline.serving.items.tree_index import TreeIndex
from pipeline.serving.predictor import Predictor
from tests.benchmarks.harness.report import Figure
from tests.benchmarks.models.two_towers import samples_of
from tests.support.world.in_memory_trainer import InMemoryTrainer

SEED, FOUND, FAN_OUT, GAIN_LEAST = 7, 200, 16, 5.0
ITEM, USER = ("item", "category"), ("user", "interests")
MODEL = """
import keras
from keras import layers

def tower(rows):
    joined = layers.Concatenate()(rows)
    return layers.Dense(16)(layers.Concatenate()([joined, layers.Dense(32, activation="relu")(joined)]))

def attended(item, sequence, mask):
    weights = layers.Dot(axes=(2, 1))([layers.Dense(16)(sequence), layers.Dense(16)(item)])
    weights = layers.Softmax()(weights, mask=keras.ops.cast(mask, "bool"))
    return layers.Dot(axes=(1, 1))([weights, sequence])

def build(inputs):
    user, item = tower([inputs["user"], inputs["interests"]]), tower([inputs["item"], inputs["category"]])
    of_user, of_item = inputs["scored_user"], layers.Concatenate()([inputs["scored_item"], inputs["scored_category"]])
    interests = attended(of_item, inputs["declared"], inputs["declared_mask"])
    products = [
        layers.Multiply()([layers.Dense(16)(of_user), layers.Dense(16)(of_item)]),
        layers.Multiply()([interests, inputs["scored_category"]]),
    ]
    joined = layers.Concatenate()([of_user, of_item, interests, *products])
    deep = layers.Dense(32, activation="relu")(joined)
    bias = keras.initializers.Constant(-2.5)
    score = layers.Add()([layers.Dense(1)(joined), layers.Dense(1, bias_initializer=bias)(deep)])
    return keras.Model(inputs, {"user": user, "item": item, "score": score})
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
_FIELDS = {"user": {}, "item": {}, "category": {}, "interests": {"pooling": "mean"}, "scored_user": {},
           "scored_item": {}, "scored_category": {}, "declared": {"pooling": "none", "max_length": 4}}  # fmt: skip
_COLUMN = {"declared": "interests"}
_TOWERS = {"item_column": "item", "temperature": 0.1, "normalise": True, "log_q": False, "negatives": 256}


@dataclass(frozen=True)
class Learned:
    """The towers and the scorer after some hours."""

    scan: ScanIndex
    scorer: Scorer
    vectors: np.ndarray
    """[users, dim]"""
    users: np.ndarray
    """[users, c] what users decide of the scores."""
    item_vectors: np.ndarray
    """[items, dim]"""
    items: np.ndarray
    """[items, d] what items decide."""
    nodes: np.ndarray
    """[nodes, d] the same of the nodes of a tree."""

    def scanned(self, user: int, count: int) -> np.ndarray:
        """[count] places of the items with the largest products."""
        found = self.scan.search(self.vectors[user : user + 1], count).ids
        return found[0].astype(np.int64)

    def scan_and_score(self, user: int, count: int) -> np.ndarray:
        """[FOUND] places of the best items by the scorer, of the `count` with the largest products."""
        some = self.scanned(user, count)
        return _best(some, self.scorer.scores(self.users[user], self.items[some]))

    def product_tree(self, beam: int) -> TreeIndex:
        """The tree of a replica, of one layer."""
        ids = np.arange(len(self.items), dtype=np.uint64)
        embedded = EmbeddedItems(ids, self.item_vectors, np.zeros(len(ids), np.uint64), self.items)
        return TreeIndex([embedded], 16, RecallTree(beam=beam, fan_out=FAN_OUT, layers=1), normalised=True)

    def found_by(self, tree: TreeIndex, user: int) -> np.ndarray:
        """[FOUND] places of the items that a tree finds."""
        users = Users(self.vectors[user : user + 1], self.users[user : user + 1])
        return tree.find(users, self.scorer, FOUND, Allowed())[0][0].astype(np.int64)


@dataclass(frozen=True)
class Tree:
    """One layer of nodes above the items: those of node i are order[first[i]:first[i + 1]]."""

    order: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> "Tree":
        """k-means of vectors [n, dim], by a seed."""
        random, count = np.random.default_rng(SEED), max(1, len(vectors) // FAN_OUT)
        centres = vectors[random.choice(len(vectors), count, replace=False)]
        for _ in range(10):
            node = np.argmax(vectors @ centres.T - (centres**2).sum(axis=1) / 2, axis=1)
            sums = np.zeros_like(centres)
            np.add.at(sums, node, vectors)
            held = np.bincount(node, minlength=count)[:, None]
            centres = np.where(held > 0, sums / np.maximum(held, 1), centres)
        order = np.argsort(node, kind="stable")
        return cls(order, np.searchsorted(node[order], np.arange(count + 1)))

    @property
    def node_of(self) -> np.ndarray:
        """[n] the node of each item."""
        found = np.empty(len(self.order), np.int64)
        found[self.order] = np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))
        return found

    def found(self, learned: Learned, nodes: np.ndarray, user: int, beam: int) -> np.ndarray:
        """[FOUND] places of the best items by the scorer, of those below the best `beam` nodes [nodes, d]."""
        of_nodes = learned.scorer.scores(learned.users[user], nodes)
        best = np.argpartition(-of_nodes, beam - 1)[:beam]
        below = np.concatenate([self.order[self.first[node] : self.first[node + 1]] for node in best.tolist()])
        return _best(below, learned.scorer.scores(learned.users[user], learned.items[below]))


def measure(folder: Path, quick: bool) -> list[Figure]:
    hours, count, scored, sizes = (
        (2, 20, 400, {"items": 1_000, "users": 200, "impressions_per_hour": 6_000}) if quick else
        (8, 150, 2_000, {"items": 10_000, "users": 3_000, "impressions_per_hour": 100_000}))  # fmt: skip
    market = Market(SEED, MarketConfig(hours=hours, **sizes))
    users = np.arange(0, sizes["users"], sizes["users"] // count)
    likeliest = np.argpartition(-market.probabilities(hours, users), FOUND, axis=1)[:, :FOUND]
    learned = _learned(folder / "items", market, users, None)
    tree = Tree.of(_item_vectors(learned[1], market))
    plain, of_nodes = learned[0], _learned(folder / "nodes", market, users, tree)[0]
    means = np.add.reduceat(plain.items[tree.order], np.minimum(tree.first[:-1], len(tree.order) - 1))
    means /= np.maximum(np.diff(tree.first), 1)[:, None]

    def arm(find: Callable[[int], np.ndarray]) -> tuple[float, float]:
        """(recall, milliseconds of processor time for a user)."""
        find(0)
        started = time.process_time()
        found = [find(user) for user in range(len(users))]
        spent_ms = 1e3 * (time.process_time() - started) / len(users)
        shares = [len(np.intersect1d(*pair)) / FOUND for pair in zip(found, likeliest, strict=True)]
        return float(np.mean(shares)), spent_ms

    arms = {
        "two towers": arm(lambda user: plain.scanned(user, FOUND)),
        "all items by the scorer": arm(lambda user: plain.scan_and_score(user, sizes["items"])),
        "scan and scorer": arm(lambda user: plain.scan_and_score(user, scored)),
    }
    beams = {}

    def by_product(beam: int) -> tuple[float, float]:
        built = plain.product_tree(beam)
        return arm(lambda user: plain.found_by(built, user))

    most_ms = arms["scan and scorer"][1]
    beams["tree, product"], arms["tree, product"] = _widest(by_product, most_ms, scored // FAN_OUT, len(means))
    for name, of, nodes in (("tree, trained", of_nodes, of_nodes.nodes), ("tree, means", plain, means)):
        beams[name], arms[name] = _widest(
            lambda beam, of=of, nodes=nodes: arm(lambda user: tree.found(of, nodes, user, beam)),
            most_ms, scored // FAN_OUT, len(nodes)
        )  # fmt: skip
    return _figures(arms, beams, {**sizes, "hours": hours, "users asked": len(users), "scored": scored})


def _figures(arms: dict[str, tuple[float, float]], beams: dict[str, int], sizes: dict[str, Any]) -> list[Figure]:
    figures = []
    for name, (recall, spent_ms) in arms.items():
        more = {"cpu ms a user": spent_ms} | ({"beam": beams[name]} if name in beams else {})
        figures.append(Figure(f"market recall at {FOUND}, {name}", recall, "", sizes | more))
    for name in ("scan and scorer", *beams):
        gain = 100 * (arms[name][0] / arms["two towers"][0] - 1)
        least = GAIN_LEAST if name == "scan and scorer" else None
        figures.append(Figure(f"market recall, {name} over two towers", gain, "%", sizes, least=least))
    return figures


def _widest(
    arm: Callable[[int], tuple[float, float]], most_ms: float, beam: int, nodes: int
) -> tuple[int, tuple[float, float]]:
    """The beam and the arm of a tree, widened and narrowed in a few steps to the processor time of the scan."""
    found = arm(beam)
    for _ in range(3):
        beam = int(np.clip(beam * most_ms / found[1], FOUND // FAN_OUT + 1, nodes))
        found = arm(beam)
    return beam, found


def _best(places: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return places[np.argpartition(-scores, FOUND - 1)[:FOUND]] if len(places) > FOUND else places


def _learned(folder: Path, market: Market, users: np.ndarray, tree: Tree | None) -> tuple[Learned, InMemoryTrainer]:
    """What a trainer learns of all hours; with a tree, each impression is also one of the node above its item."""
    trainer = _trainer(folder)
    instances = market.items(market.config.hours).select(list(ITEM)).to_pylist()
    nodes = {} if tree is None else {
        item["item"]: f"node-{node}" for item, node in zip(instances, tree.node_of.tolist(), strict=True)}  # fmt: skip
    for hour in range(market.config.hours):
        samples = samples_of(market.events(hour), (*ITEM, *USER))
        samples = samples.rename_columns(["score" if name == "label" else name for name in samples.schema.names])
        trainer.learn(_with_nodes(samples, nodes) if nodes else samples)
        trainer.inputs.clear()
    config, root = trainer.project.config, trainer.project.root
    towers = {name: Predictor(config, root, (name,)) for name in ("user", "item")}
    scorer = Scorer(config, root, "score", ITEM)
    for each in (*towers.values(), scorer):
        each.load(trainer.model.serving_bytes())
    of_users = market.users(users).to_pylist()
    of_nodes = [{"item": f"node-{node}"} for node in range(0 if tree is None else len(tree.first) - 1)]

    def half(side: Any, some: list[dict]) -> np.ndarray:
        return side.parts(Predictor(config, root).features(some, 0), trainer.lookup)

    def vectors(tower: str, some: list[dict]) -> np.ndarray:
        return towers[tower].predict(towers[tower].features(some, 0), trainer.lookup)

    scan = ScanIndex(16)
    of_items = vectors("item", instances)
    scan.put(np.arange(len(instances), dtype=np.uint64), of_items)
    learned = Learned(scan, scorer, vectors("user", of_users), half(scorer.users, of_users),
                      of_items, half(scorer.items, instances), half(scorer.items, of_nodes))  # fmt: skip
    return learned, trainer


def _item_vectors(trainer: InMemoryTrainer, market: Market) -> np.ndarray:
    tower = Predictor(trainer.project.config, trainer.project.root, ("item",))
    tower.load(trainer.model.serving_bytes())
    instances = market.items(market.config.hours).select(list(ITEM)).to_pylist()
    return tower.predict(tower.features(instances, 0), trainer.lookup)


def _with_nodes(samples: pa.RecordBatch, nodes: dict[str, str]) -> pa.RecordBatch:
    """The samples, each followed by one of the node above its item; an item that is gone by now has none."""
    above = [nodes.get(item) for item in samples.column("item").to_pylist()]
    place = samples.schema.get_field_index("item")
    copies = samples.set_column(place, "item", pa.array(above, pa.string()))
    copies = copies.set_column(
        samples.schema.get_field_index("category"), "category", pa.nulls(len(samples), pa.string())
    )
    both = pa.concat_batches([samples, copies])
    order = np.arange(2 * len(samples)).reshape(2, -1).T.ravel()
    kept = order[(order < len(samples)) | np.array([True] * len(samples) + [name is not None for name in above])[order]]
    return both.take(pa.array(kept))


def _trainer(folder: Path) -> InMemoryTrainer:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    optimizer = {"kind": "adagrad", "learning_rate": 0.1}
    fields = [
        {"name": name, "columns": [_COLUMN.get(name, name.removeprefix("scored_"))], "dim": 16, "optimizer": optimizer}
        | more
        for name, more in _FIELDS.items()
    ]
    labels = [{"name": "score"}, {"name": "match", "target": "score", "loss": "in_batch", "towers": _TOWERS}]
    config = parse_config({**tomllib.loads(SETTINGS), "fields": fields, "labels": labels})
    return InMemoryTrainer(Project(folder, config, SystemClock()))
