"""A label over pairs, cut into the layers of users, of items and of both: its predictions are those of the whole."""

import gc
import weakref

import numpy as np
import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import UserCodeError
from pipeline.model.dense import DenseModel
from pipeline.model.loss.targets import trial_targets

ATTENTION = """
import keras
from keras import layers

def build(inputs):
    seen, mask, item = inputs["seen"], inputs["seen_mask"], layers.Concatenate()([inputs["item"], inputs["price"]])
    key = layers.Dense(4, activation="tanh")(item)
    weights = layers.Dot(axes=(2, 1))([layers.Dense(4)(seen), key])
    weights = layers.Softmax()(weights, mask=mask)
    interest = layers.Dot(axes=(1, 1))([weights, seen])
    user = layers.BatchNormalization()(layers.Dense(8, activation="relu")(inputs["user"]))
    joined = layers.Concatenate()([user, inputs["age"], interest, item])
    deep = layers.Dropout(0.5, seed=1)(layers.Dense(8, activation="relu")(joined))
    return keras.Model(inputs, {"click": layers.Dense(1)(deep), "bought": layers.Dense(1)(joined)})
"""
HISTORY = """
import keras
from keras import layers, ops

def build(inputs):
    state = layers.GRU(6)(inputs["seen"], mask=inputs["seen_mask"])
    own = ops.ones_like(inputs["seen_mask"][:, :1])
    pair = layers.Multiply()([layers.Dense(6)(inputs["item"]), state])
    rest = layers.Concatenate()([inputs["user"], inputs["age"], inputs["price"], ops.cast(own, "float32")])
    joined = layers.Concatenate()([pair, rest])
    return keras.Model(inputs, {"click": layers.Dense(1)(joined), "bought": layers.Dense(1)(joined)})
"""
MASKED = """
import keras
from keras import layers

def build(inputs):
    seen = layers.Dense(4)(layers.Masking()(inputs["seen"]))
    pairs = layers.Concatenate()([seen, layers.RepeatVector(3)(layers.Dense(4)(inputs["item"]))])
    state = layers.GRU(4)(pairs)
    joined = layers.Concatenate()([state, inputs["user"], inputs["age"], inputs["price"]])
    return keras.Model(inputs, {"click": layers.Dense(1)(joined), "bought": layers.Dense(1)(joined)})
"""
FOLDED = """
import keras
from keras import layers, ops

def build(inputs):
    elements = ops.reshape(inputs["seen"], (-1, 3))
    repeated = ops.reshape(layers.RepeatVector(3)(layers.Dense(3)(inputs["item"])), (-1, 3))
    products = ops.reshape(ops.sum(elements * repeated, axis=-1), (-1, 3))
    joined = layers.Concatenate()([products, inputs["user"], inputs["age"], inputs["price"]])
    return keras.Model(inputs, {"click": layers.Dense(1)(joined), "bought": layers.Dense(1)(joined)})
"""
APART = """
import keras
from keras import layers

def build(inputs):
    return keras.Model(inputs, {"click": layers.Dense(1)(layers.Concatenate()([inputs["item"], inputs["price"]])),
                                "bought": layers.Dense(1)(inputs["user"])})
"""
AGAIN = """
import keras
from keras import layers

def build(inputs):
    twice = layers.Dense(5, activation="tanh")
    user, item = twice(inputs["user"]), layers.Dense(5)(inputs["item"])
    pair = twice(layers.Add()([user, item]))
    joined = layers.Concatenate()([pair, user, inputs["age"], inputs["price"], layers.Flatten()(inputs["seen"])])
    return keras.Model(inputs, {"click": layers.Dense(1)(joined), "bought": layers.Dense(1)(joined)})
"""
NETWORKS = {
    "attention": ATTENTION, "history": HISTORY, "masked": MASKED, "folded": FOLDED, "apart": APART, "again": AGAIN,
}  # fmt: skip
ITEMS = {"item", "price"}


def network_of(root, text):
    """A configuration's network after some steps."""
    (root / "model.py").write_text(text)
    columns = {"id": "string", "user": "int", "item": "string", "seen": "strings", "price": "float", "age": "float"}
    document = {
        "events": {"key": ["id"], "impressions": {"columns": columns},
                   "clicks": {"columns": {"id": "string", "bought": "float"}}},
        "labels": [{"name": "click"}, {"name": "bought", "given": "click", "conditional": "cvr"}],
        "tables": [{"name": "items", "dim": 3}],
        "fields": [
            {"name": "user", "columns": ["user"], "dim": 5},
            {"name": "item", "columns": ["item"], "table": "items"},
            {"name": "seen", "columns": ["seen"], "table": "items", "pooling": "none", "max_length": 3},
        ],
        "dense": [{"name": name, "column": name, "normalise": True} for name in ("price", "age")],
        "model": {"batch_size": 16, "learning_rate": 0.1},
    }  # fmt: skip
    config = parse_config(document)
    network = DenseModel(config, root)
    for _ in range(3):
        network.learn_scaling(np.random.default_rng(1).normal(3, 2, (16, 2)).astype(np.float32))
        network.step(inputs_of(network, 4), trial_targets(4, config.outputs))
    return network


def inputs_of(network, n):
    """[n, columns] random inputs, with lists of any length."""
    random = np.random.default_rng(n)
    inputs = random.normal(1, 2, (n, network.layout.columns)).astype(np.float32)
    start = network.layout.starts["seen"]
    present = np.arange(3) < random.integers(1, 4, n)[:, None]
    inputs[:, start : start + 9] *= np.repeat(present, 3, axis=1)
    inputs[:, start + 9 : start + 12] = present
    return inputs


def columns_of(side, network, inputs):
    """The columns of the whole matrix that a side reads."""
    starts, widths = network.layout.starts, dict(zip(side.layout.names, side.layout.widths, strict=True))
    places = [np.arange(starts[name], starts[name] + width) for name, width in widths.items()]
    return np.ascontiguousarray(inputs[:, np.concatenate([np.empty(0, np.int64), *places])])


def pair_of(network, label):
    pair = network.pair(label, lambda own: ITEMS & {each.name for each in (*own.fields, *own.dense)})
    assert not {*pair.users.layout.names} & ITEMS
    assert {*pair.items.layout.names} <= ITEMS
    pair.load_serving(network.serving_bytes())
    return pair


@pytest.mark.parametrize("label", ["click", "bought"])
@pytest.mark.parametrize("name", NETWORKS)
def test_pairs_are_predicted_as_by_the_whole_network(tmp_path, name, label):
    network = network_of(tmp_path, NETWORKS[name])
    pair, users, items = pair_of(network, label), inputs_of(network, 3), inputs_of(network, 20)
    both = np.repeat(users, 20, axis=0)
    for item in ITEMS:
        at = slice(network.layout.starts[item], network.layout.starts[item] + (3 if item == "item" else 1))
        both[:, at] = np.tile(items, (3, 1))[:, at]
    network.scale(both)
    wanted = network.predict(both)[:, ["click", "bought"].index(label)].reshape(3, 20)
    of_users = pair.users.parts(columns_of(pair.users, network, users))
    of_items = pair.items.parts(columns_of(pair.items, network, items))
    found = np.stack([pair.scores(user, of_items) for user in of_users])
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)
    assert pair.scores(of_users[0], of_items[:0]).shape == (0,)


def width_of(side):
    return side.parts(np.zeros((1, side.layout.columns), np.float32)).shape[1]


def test_layers_of_one_side_are_computed_with_it(tmp_path):
    pair = pair_of(network_of(tmp_path, ATTENTION), "click")
    assert width_of(pair.users) == 3 * 4 + 3 + 9 + 8 + 1  # projected history, mask, history, user, age
    assert width_of(pair.items) == 4 + 4  # key, and what it is computed of


@pytest.mark.parametrize("name", ["masked", "folded", "again"])
def test_a_network_that_cannot_be_cut_above_its_inputs_is_cut_at_them(tmp_path, name):
    pair = pair_of(network_of(tmp_path, NETWORKS[name]), "click")
    assert width_of(pair.users) == 5 + 3 * 3 + 1  # without the mask of the list, which neither reads
    assert width_of(pair.items) == 3 + 1


def test_a_failing_layer_is_an_error_that_names_the_model(tmp_path):
    text = ATTENTION.replace("def build", FAILING + "\n\ndef build")
    text = text.replace('layers.Dense(8, activation="relu")(joined)', "Failing()(joined)")
    assert "Failing()(joined)" in text
    pair = pair_of(network_of(tmp_path, text), "click")
    user, items = (
        pair.users.parts(np.zeros((1, pair.users.layout.columns), np.float32))[0],
        np.zeros((2, 8), np.float32),
    )
    items[1] = np.nan
    with pytest.raises(UserCodeError, match="the model of model:build failed"):
        pair.scores(user, items)


FAILING = """
class Failing(layers.Layer):
    def call(self, x):
        import tensorflow as tf
        tf.debugging.assert_all_finite(x, "not finite")
        return x
"""


def test_the_complete_network_can_be_freed(tmp_path):
    network = network_of(tmp_path, ATTENTION)
    pair, whole = pair_of(network, "click"), weakref.ref(network)
    del network
    gc.collect()
    assert whole() is None
    assert pair.users.parts(np.zeros((1, pair.users.layout.columns), np.float32)).shape[0] == 1
