"""Models over a history learn what only the history shows, repeatably, and serve the bits of their forward pass."""

import copy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.serving.predictor import Predictor
from tests.support.shop.shop import WRITTEN, make_project, make_samples
from tests.support.world.in_memory_trainer import InMemoryTrainer

GROUPS, ITEMS, BATCH, BATCHES = 2, 6, 64, 40

HEAD = """
import keras
from keras import layers, ops

def head(inputs, *parts):
    x = layers.Concatenate()(list(parts))
    x = layers.Dense(16, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(1)(x))
"""

DIN = (
    HEAD
    + """
def build(inputs):
    history, mask, item = inputs["history"], inputs["history_mask"], inputs["item"]
    repeated = layers.RepeatVector(history.shape[1])(item)
    pairs = layers.Concatenate()([history, repeated, layers.Multiply()([history, repeated])])
    scores = layers.Dense(1)(layers.Dense(16, activation="relu")(pairs))
    weights = layers.Softmax(axis=1)(scores, mask=ops.expand_dims(mask, -1))
    interest = layers.Flatten()(layers.Dot(axes=1)([weights, history]))
    return head(inputs, interest, item, layers.Multiply()([interest, item]))
"""
)

GRU = (
    HEAD
    + """
def build(inputs):
    state = layers.GRU(8)(inputs["history"], mask=inputs["history_mask"])
    return head(inputs, state, inputs["item"], layers.Multiply()([state, inputs["item"]]))
"""
)

TRANSFORMER = (
    HEAD
    + """
def build(inputs):
    x = layers.Concatenate(axis=1)([inputs["history"], layers.RepeatVector(1)(inputs["item"])])
    own = ops.ones_like(inputs["history_mask"][:, :1])
    mask = layers.Concatenate(axis=1)([inputs["history_mask"], own])
    mixed = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=mask[:, None, :])
    x = layers.LayerNormalization()(layers.Add()([x, mixed]))
    x = layers.Add()([x, layers.Dense(8)(layers.Dense(16, activation="relu")(x))])
    return head(inputs, x[:, -1], inputs["item"], layers.Multiply()([x[:, -1], inputs["item"]]))
"""
)

MODELS = {"din": DIN, "gru": GRU, "transformer": TRANSFORMER}


def document() -> dict:
    learned = {"dim": 8, "init_scale": 0.5, "optimizer": {"kind": "adagrad", "learning_rate": 0.3}}
    history = {"name": "history", "columns": ["tags"], "pooling": "none", "max_length": 4}
    fields = [learned | {"name": "item", "columns": ["item"]}, learned | history]
    return copy.deepcopy(WRITTEN) | {"fields": fields, "model": {"batch_size": BATCH, "learning_rate": 0.3}}


def samples(rows: int, seed: int = 5) -> pa.RecordBatch:
    """Clicked if the last item of the history has the group of the item: neither shows anything alone."""
    random = np.random.default_rng(seed)
    item, lengths = random.integers(0, ITEMS, rows), random.integers(0, 7, rows)
    history = [random.integers(0, ITEMS, length).tolist() for length in lengths]
    fits = [bool(h) and h[-1] % GROUPS == i % GROUPS for h, i in zip(history, item, strict=True)]
    made = make_samples(seed, rows)
    for name, column in {
        "item": pa.array([f"i{i}" for i in item]),
        "tags": pa.array([[f"i{i}" for i in each] for each in history], pa.list_(pa.string())),
        "label": pa.array(np.where(fits, np.float32(1), np.float32(0))),
        "kind": pa.array(np.where(fits, "positive", "negative")),
    }.items():
        made = made.set_column(made.schema.get_field_index(name), name, column)
    return made


def learned(root: Path, model: str) -> InMemoryTrainer:
    trainer = InMemoryTrainer(make_project(root, document(), MODELS[model]))
    trainer.learn(samples(BATCH * BATCHES - 1))  # the last batch is short
    return trainer


@pytest.mark.parametrize("model", MODELS)
def test_model_over_a_history_learns_from_it_repeatably_and_serves_what_it_learned(tmp_path, model):
    trainer = learned(tmp_path / "first", model)
    rate = samples(BATCH * BATCHES).column("label").to_numpy().mean()
    base = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert np.mean(trainer.losses[-10:]) < 0.8 * base < base < 1.2 * np.mean(trainer.losses[:3])
    assert learned(tmp_path / "second", model).digest() == trainer.digest()
    assert_serves_the_same_bits(trainer, samples(BATCH, seed=9))


def assert_serves_the_same_bits(trainer: InMemoryTrainer, stream: pa.RecordBatch) -> None:
    """Serving feeds the network the bytes that training feeds it, and computes its forward pass of them."""
    predictor = Predictor(trainer.project.config, trainer.project.root)
    predictor.load(trainer.model.serving_bytes())
    features = predictor.features(stream.select(["id", "user", "item", "tags"]).to_pylist(), 0)
    inputs, served = predictor.inputs(features, trainer.lookup), predictor.predict(features, trainer.lookup)
    np.testing.assert_array_equal(served, trainer.model.predict(inputs))
    trainer.learn(stream)  # scored by the step before it is learned from
    np.testing.assert_array_equal(inputs.view(np.uint32), trainer.inputs[-1].view(np.uint32))
    np.testing.assert_allclose(served, 1 / (1 + np.exp(-trainer.logits[-1])), rtol=1e-4, atol=1e-6)  # compiled by XLA
