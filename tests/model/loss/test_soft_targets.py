"""Labels that another label teaches: gradients against plain TensorFlow, and the teacher's, which stays as it is."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from pipeline.configuration.config import parse_config
from pipeline.errors import ConfigError
from pipeline.model.dense import DenseModel
from pipeline.model.loss.soft_targets import lessons_of, soft_target_losses
from pipeline.model.loss.targets import targets_of
from pipeline.model.network.weights import unpack
from tests.model.loss.test_losses import document_of

COARSE = {"name": "coarse", "target": "label", "teacher": "label", "distill": 0.5}
FINE = """
import keras
from keras import layers

def build(inputs):
    fine = layers.Dense(16, activation="relu")(layers.Concatenate()([inputs["user"], inputs["price"]]))
    fine = layers.Dense(1)(layers.BatchNormalization()(layers.Dense(8, activation="tanh")(fine)))
    COARSE
"""
ALONE = 'return keras.Model(inputs, {"label": fine})'
BESIDE = """
    coarse = layers.Dense(1)(layers.Dense(4, activation="relu")(ROWS))
    return keras.Model(inputs, {"label": fine, "coarse": coarse})
"""


def model_of(root, *labels, coarse=ALONE, batch_size=32):
    root.mkdir(exist_ok=True)
    (root / "model.py").write_text(FINE.replace("COARSE", coarse))
    own = [label for label in labels if "target" not in label]
    document = document_of(*own) | {"labels": list(labels), "model": {"batch_size": batch_size, "learning_rate": 0.1}}
    config = parse_config(document)
    return config, DenseModel(config, root)


def samples(n, seed=0, kind=None):
    random = np.random.default_rng(seed)
    clicked = random.random(n) < 0.4
    return pa.record_batch(
        {
            "label": pa.array(clicked.astype(np.float32)),
            "weight": pa.array(random.choice([0.5, 1.0, 2.0], n).astype(np.float32)),
            "rate": pa.array(np.ones(n, np.float32)),
            "kind": pa.array(np.where(clicked, "positive", "negative") if kind is None else [kind] * n),
            "negative_written": pa.array(np.zeros(n, bool)),
        }
    )


def test_the_loss_and_its_gradient_are_those_of_soft_targets_without_a_gradient_into_the_teacher(tmp_path):
    config, _ = model_of(tmp_path, {"name": "label"}, COARSE, coarse=BESIDE.replace("ROWS", 'inputs["item"]'))
    outputs = tf.constant(np.random.default_rng(1).normal(0, 3, (20, 2)), tf.float32)
    weights = tf.constant(np.random.default_rng(2).random((20, 2)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        losses = soft_target_losses(lessons_of(config.outputs), outputs, weights)
    teacher, learner = tf.sigmoid(outputs[:, 0]), outputs[:, 1]
    wanted = 0.5 * weights[:, 1] * tf.nn.sigmoid_cross_entropy_with_logits(teacher, learner)
    np.testing.assert_allclose(losses[:, 1], wanted, rtol=1e-5, atol=1e-6)
    gradient = tape.gradient(losses, outputs).numpy()
    np.testing.assert_allclose(gradient[:, 1], 0.5 * weights[:, 1] * (tf.sigmoid(learner) - teacher), atol=1e-6)
    assert not gradient[:, 0].any()
    assert not losses[:, 0].numpy().any()


@pytest.mark.parametrize("rows", ['inputs["item"]', 'keras.ops.stop_gradient(inputs["user"])'])
def test_the_teacher_learns_what_it_learns_alone(tmp_path, rows):
    _, alone = model_of(tmp_path / "alone", {"name": "label"})
    _, both = model_of(tmp_path / "both", {"name": "label"}, COARSE, coarse=BESIDE.replace("ROWS", rows))
    of_fine = [0, 1, 2, 5]  # user and price; the coarse label reads item, or user without a gradient

    def step(seed, n):
        inputs = np.random.default_rng(seed).normal(0, 1, (n, 6)).astype(np.float32)
        one, two = (model.step(inputs, targets_of(samples(n, seed), model._labels)) for model in (alone, both))
        return (one.logits, one.gradient[:, of_fine]), (two.logits[:, :1], two.gradient[:, of_fine])

    for seed in range(4):
        one, two = step(seed, 9)
        assert all(a.tobytes() == np.ascontiguousarray(b).tobytes() for a, b in zip(one, two, strict=True))
    first, second = ([a.tobytes() for a in unpack(model.serving_bytes()).values()] for model in (alone, both))
    assert set(first) <= set(second)
    # A full batch is compiled by XLA, both towers as one program: equal to rounding.
    one, two = step(4, 32)
    assert all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(one, two, strict=True))


def test_a_compensation_teaches_nothing_twice(tmp_path):
    config, _ = model_of(tmp_path, {"name": "label"}, COARSE, coarse=BESIDE.replace("ROWS", 'inputs["item"]'))
    batch = samples(4, kind="compensation")
    reversing = batch.set_column(
        batch.schema.get_field_index("negative_written"), "negative_written", pa.array([True] * 4)
    ).set_column(0, "label", pa.array([1.0] * 4, pa.float32()))
    targets = targets_of(reversing, config.outputs)
    assert not (targets.positive + targets.negative).any()
    outputs = tf.constant(np.ones((4, 2)), tf.float32)
    assert (
        not soft_target_losses(lessons_of(config.outputs), outputs, targets.positive + targets.negative).numpy().any()
    )


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (
            [{"name": "label"}, COARSE | {"teacher": "fine"}],
            "label coarse has teacher fine, which does not exist. known: ",
        ),
        ([{"name": "label"}, COARSE | {"teacher": "coarse"}], "label coarse is its own teacher"),
        (
            [{"name": "label"}, {"name": "coarse", "target": "label", "distill": 0.5}],
            "coarse has distill without teacher",
        ),
        ([{"name": "label"}, COARSE | {"distill": 0}], "labels.1.distill: "),
        (
            [{"name": "label"}, {"name": "dwell", "loss": "squared", "teacher": "label"}],
            "label dwell has loss squared, but",
        ),
        (
            [{"name": "label"}, {"name": "dwell", "loss": "poisson"}, COARSE | {"teacher": "dwell"}],
            "label dwell has loss poisson, but coarse has teacher dwell",
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(labels, problem):
    own = [label for label in labels if "target" not in label]
    with pytest.raises(ConfigError) as caught:
        parse_config(document_of(*own) | {"labels": labels})
    assert problem in str(caught.value)


def test_a_teacher_whose_outputs_are_another_probability_is_refused():
    document = document_of({"name": "label"}) | {"labels": [{"name": "label", "correction": "calibration"}]}
    document["labels"].append(COARSE | {"correction": "reversal"})
    document["samples"] = {"policy": "fake_negative"}
    with pytest.raises(ConfigError, match="label coarse has correction reversal, its teacher label calibration"):
        parse_config(document)
    document["labels"][1].pop("correction")
    parse_config(document)
