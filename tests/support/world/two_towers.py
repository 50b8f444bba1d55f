"""A model with two towers over the synthetic fields, a file of items, and versions with random rows and weights."""

import json

import numpy as np

from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel
from pipeline.model.identity import serving_digest
from pipeline.model.network.weights import pack, unpack
from pipeline.publish.publisher import TouchedRows
from pipeline.serving.items.item_view import ItemView
from pipeline.serving.replica import Replica
from tests.support.synthetic.trainer import DIMS, SyntheticTrainer, project_at

TWO_TOWERS = """
import keras
from keras import layers

def build(inputs):
    user = layers.Dense(4)(inputs["user"])
    item = layers.Dense(4)(layers.Concatenate()([inputs["item"], inputs["price"]]))
    return keras.Model(inputs, {"user": user, "item": item})
"""
_FIELDS = "".join(
    f"""
[[fields]]
name = "{name}"
columns = ["{name}"]
dim = {dim}
"""
    for name, dim in DIMS.items()
)
SETTINGS = f"""
[events]
key = ["id"]

[events.impressions]
columns = {{ id = "int", user = "int", item = "int", price = "float" }}

[events.clicks]
columns = {{ id = "int" }}
{_FIELDS}
[[dense]]
name = "price"
column = "price"

[publish]
loss = 0.0002

[[labels]]
name = "label"
loss = "in_batch"
towers = {{ item_column = "item" }}
"""
"""The file of settings of the project of `TwoTowers`, without `[recall]`."""
TOWERS = {"name": "label", "loss": "in_batch", "towers": {"item_column": "item"}}
ITEMS = [{"item": 100 + i, "price": i / 10} for i in range(50)]
USERS = [{"user": i} for i in range(5)]


def project_folder(root, recall):
    """Write the files of the project of `TwoTowers`, with the text of `[recall]`; returns `root`."""
    (root / "model.py").write_text(TWO_TOWERS)
    (root / "springtide.toml").write_text(SETTINGS + recall)
    return root


class TwoTowers:
    """A trainer of the model; `commit` publishes a version."""

    def __init__(self, root, items=ITEMS, model=TWO_TOWERS, **sections):
        (root / "model.py").write_text(model)
        (root / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        self.items = items
        chosen = {"labels": [TOWERS], "recall": {"items": "items.jsonl"}, "serving": {"port": 0}, **sections}
        self.project = project_at(root, **chosen)
        self.trainer = SyntheticTrainer(self.project)
        self.plan = FeaturePlan(self.project.config, root)
        network = DenseModel(self.project.config, root)
        self.trainer.model = {"digest": serving_digest(self.project.config, self.plan, network)}
        self.dense, self.random = unpack(network.serving_bytes()), np.random.default_rng(1)
        self.scale = 1.0
        self.trainer.next_dense = self.drawn_weights

    def commit(self, rows=True, scale=1.0):
        """Publish random dense weights of this scale, and random rows for all users and items if `rows`."""
        self.scale = scale
        batch, at_ms = self.plan.batch_of([user | item for user in USERS for item in self.items], 0)
        touched = {}
        for name, found in self.plan.extract(batch, at_ms).keys.items():
            keys, table = np.unique(found.keys) if rows else np.empty(0, np.uint64), self.trainer.tables[name]
            for key in keys:
                table.put(int(key), self.random.standard_normal(DIMS[name]).astype(np.float32), 1.0, 0.5)
            touched[name] = TouchedRows(keys, table.rows(keys), np.empty(0, np.uint64))
        self.trainer.commit(touched=touched, flush=True)

    def drawn_weights(self):
        """Random variables of the network, as serving gets them."""
        variables = {name: array for name, array in self.dense.items() if name.startswith("variable")}
        drawn = {n: self.scale * self.random.standard_normal(a.shape).astype(a.dtype) for n, a in variables.items()}
        return pack(self.dense | {n: array.astype(np.float32) for n, array in drawn.items()})


def refreshed_view(world: TwoTowers) -> tuple[Replica, ItemView]:
    """A replica of the next version, and its items as that version embeds them."""
    world.commit()
    replica = Replica.for_predictions(world.project, world.trainer.log)
    replica.catch_up()
    view = ItemView(world.project, replica, world.trainer.log)
    view.refresh()
    return replica, view
