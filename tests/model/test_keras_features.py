"""What Keras offers around a network: honoured in training, or refused by name when the model is built or first run."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.model.dense import DenseModel
from pipeline.model.loss.targets import targets_of
from pipeline.model.network.weights import unpack
from pipeline.model.training.step import INITIAL_ACCUMULATOR
from tests.model.test_model import (
    COMPENSATION,
    NEGATIVE,
    POSITIVE,
    RATE,
    config_of,
    inputs_of,
    model_of,
    samples_of,
    targets,
)

HEAD = "import keras\nimport tensorflow as tf\nfrom keras import layers, ops\n"
SHORT = [POSITIVE, NEGATIVE, NEGATIVE]
FULL = [*SHORT, POSITIVE]


def linear(arguments: str = "", head: str = "") -> str:
    """A network of one dense layer over all inputs, with further arguments."""
    return f"""{HEAD}{head}
def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs, layers.Dense(1, {arguments})(x))
"""


def layered(body: str) -> str:
    """A network with a layer `Own` of that body before the last one."""
    return f"""{HEAD}
class Own(layers.Layer):
{body}
def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs, layers.Dense(1)(Own()(x)))
"""


def array(model: DenseModel, part: str) -> np.ndarray:
    """The variable whose name contains `part`."""
    [found] = [a for name, a in unpack(model.weights_bytes()).items() if part in name]
    return np.asarray(found, np.float64)


def learned(root: Path, source: str, steps: int = 30, rows: int = 4) -> DenseModel:
    model = model_of(root, source)
    for _ in range(steps):
        model.step(inputs_of(rows), targets(*FULL[:rows]))
    return model


# What fills a batch up counts for nothing.

NORMALISED = linear().replace("x = layers.Conc", "x = layers.BatchNormalization(momentum=0.0)(layers.Conc")
NORMALISED = NORMALISED.replace("(list(inputs.values()))", "(list(inputs.values())))")


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_batch_normalisation_sees_the_samples_of_a_batch_and_nothing_else(tmp_path, rows):
    model = model_of(tmp_path, NORMALISED)
    x = inputs_of(rows) + 10
    model.step(x, targets(*FULL[:rows]))
    assert np.allclose(array(model, "moving_mean"), x.mean(axis=0), atol=1e-4)
    assert np.allclose(array(model, "moving_variance"), x.var(axis=0), atol=1e-4)


MIXING = layered("    def call(self, x):\n        return x - ops.mean(x, axis=0, keepdims=True)\n")


def test_layer_that_mixes_samples_sees_only_those_of_the_batch(tmp_path):
    model = model_of(tmp_path, MIXING)
    kernel, x = array(model, "kernel"), inputs_of(3)
    logits = model.step(x, targets(*SHORT)).logits
    assert np.allclose(logits, (x - x.mean(axis=0)) @ kernel, atol=1e-5)


def test_prediction_of_a_request_depends_on_its_own_instances_only(tmp_path):
    model = model_of(tmp_path, NORMALISED)
    together = model.predict(inputs_of(5))
    alone = [model.predict(inputs_of(5)[i : i + 1])[0] for i in range(5)]
    assert np.allclose(together, alone, atol=1e-6)


def test_batches_of_many_sizes_run_the_networks_python_code_twice_at_most(tmp_path):
    model = model_of(
        tmp_path, layered("    def call(self, x):\n        CALLS.append(1)\n        return x\n") + "CALLS = []\n"
    )
    calls = model._function.call.__globals__["CALLS"]
    built = len(calls)
    for rows in (1, 2, 3, 4, 2, 1, 4):
        model.step(inputs_of(rows), targets(*FULL[:rows]))
    assert len(calls) - built == 2


# Regularisers, losses of layers, constraints.


@pytest.mark.parametrize("rows", [3, 4])
def test_regulariser_is_in_the_gradient_and_in_the_loss(tmp_path, rows):
    plain = model_of(tmp_path, linear()).step(inputs_of(rows), targets(*FULL[:rows]))
    model = model_of(tmp_path, linear("kernel_regularizer=keras.regularizers.L2(3.0)"))
    kernel, x = array(model, "kernel"), inputs_of(rows)
    result = model.step(x, targets(*FULL[:rows]))
    assert result.penalty == pytest.approx(3 * (kernel**2).sum(), rel=1e-5)
    assert result.sample_loss == pytest.approx(plain.loss, rel=1e-5)
    assert result.loss == pytest.approx(plain.loss + result.penalty, rel=1e-5)
    by_logit = 1 / (1 + np.exp(-x @ kernel)) - np.array([[1], [0], [0], [1]])[:rows]
    gradient = (x.T @ by_logit + rows * 6 * kernel) / 4
    squares = INITIAL_ACCUMULATOR + gradient**2
    assert np.allclose(array(model, "kernel"), kernel - RATE * gradient / np.sqrt(squares), atol=1e-4)


def test_strong_regulariser_takes_the_weights_to_nearly_nothing(tmp_path):
    model = learned(tmp_path, linear("kernel_regularizer=keras.regularizers.L2(100.0)"), steps=200)
    assert np.abs(array(model, "kernel")).max() < 0.05


@pytest.mark.parametrize("rows", [3, 4])
def test_loss_that_a_layer_adds_reaches_the_weights_and_the_rows(tmp_path, rows):
    body = "    def call(self, x):\n        self.add_loss(0.5 * ops.mean(ops.sum(x * x, axis=1)))\n        return x\n"
    plain = model_of(tmp_path, linear()).step(inputs_of(rows), targets(*FULL[:rows]))
    result = model_of(tmp_path, layered(body)).step(inputs_of(rows), targets(*FULL[:rows]))
    assert result.penalty == pytest.approx(0.5 * (inputs_of(rows) ** 2).sum(axis=1).mean(), rel=1e-5)
    assert np.allclose(result.gradient - plain.gradient, inputs_of(rows), atol=1e-5)


def test_activity_regulariser_counts_each_sample_once(tmp_path):
    model = model_of(tmp_path, linear("activity_regularizer=keras.regularizers.L1(2.0)"))
    logits = inputs_of(3) @ array(model, "kernel")
    assert model.step(inputs_of(3), targets(*SHORT)).penalty == pytest.approx(2 * np.abs(logits).mean(), rel=1e-5)


def test_predictions_do_not_add_to_the_loss_of_the_next_step(tmp_path):
    source = linear("activity_regularizer=keras.regularizers.L1(2.0)")
    one, other = model_of(tmp_path, source), model_of(tmp_path, source)
    one.predict(inputs_of(2))
    assert one.step(inputs_of(3), targets(*SHORT)).loss == other.step(inputs_of(3), targets(*SHORT)).loss


@pytest.mark.parametrize("rows", [3, 4])
def test_constraints_hold_after_every_step(tmp_path, rows):
    model = learned(tmp_path, linear("kernel_constraint=keras.constraints.NonNeg()"), steps=1, rows=rows)
    assert array(model, "kernel").min() >= 0
    model = learned(tmp_path, linear("kernel_constraint=keras.constraints.MaxNorm(0.01)"), steps=2, rows=rows)
    assert np.linalg.norm(array(model, "kernel")) <= 0.0101


def test_frozen_layer_keeps_its_weights_and_pays_no_penalty(tmp_path):
    model = model_of(tmp_path, linear("trainable=False, kernel_regularizer=keras.regularizers.L2(3.0)"))
    before = array(model, "kernel")
    assert model.step(inputs_of(4), targets(*FULL)).penalty == 0
    assert array(model, "kernel").tolist() == before.tolist()


def test_weights_that_a_step_made_infinite_are_reported(tmp_path):
    model = model_of(tmp_path, linear("kernel_regularizer=keras.regularizers.L2(3e37)"))
    assert model.step(inputs_of(4), targets(*FULL)).finite is False
    assert learned(tmp_path, linear(), steps=1).step(inputs_of(4), targets(*FULL)).finite is True


# Types.


ONES = "kernel_initializer='ones'"
"""Weights of another type begin at other random numbers."""


@pytest.mark.parametrize(
    "source",
    [
        linear(f"{ONES}, dtype='float64'"),
        linear(f"{ONES}, dtype='mixed_bfloat16'"),
        linear(ONES, head="keras.config.set_dtype_policy('float64')\n"),
        linear(ONES, head="keras.config.set_dtype_policy('mixed_bfloat16')\n"),
        linear(ONES, head="keras.config.set_floatx('float64')\n"),
    ],
)
def test_network_of_another_float_type_learns_the_same_within_its_precision(tmp_path, source):
    models = [learned(tmp_path, each, steps=3, rows=3) for each in (source, linear(ONES))]
    for model in models:
        model.step(inputs_of(4), targets(*FULL))
    assert np.allclose(*(array(model, "kernel") for model in models), atol=0.03)


def test_settings_of_keras_that_one_model_changes_do_not_reach_the_next(tmp_path):
    before = model_of(tmp_path, linear()).weights_bytes()
    model_of(tmp_path, linear(head="keras.config.set_floatx('float64')\nkeras.config.set_dtype_policy('float64')\n"))
    assert model_of(tmp_path, linear()).weights_bytes() == before


EMBEDDING = f"""{HEAD}
def build(inputs):
    x = layers.Flatten()(layers.Embedding(4, 2, embeddings_regularizer=keras.regularizers.L2(0.1))(inputs["price"]))
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([x, inputs["user"]])))
"""


@pytest.mark.parametrize("rows", [3, 4])
def test_embedding_layer_inside_the_network_learns(tmp_path, rows):
    model = model_of(tmp_path, EMBEDDING)
    x = inputs_of(rows)
    x[:, 5] = 2
    before = array(model, "embeddings")
    model.step(x, targets(*FULL[:rows]))
    assert (array(model, "embeddings")[2] != before[2]).all()


def test_embedding_layer_outside_its_range_is_an_error_of_the_model(tmp_path):
    model = model_of(tmp_path, EMBEDDING)
    with pytest.raises(ModelError, match=r"the model of model:build failed: InvalidArgumentError.*not in \[0, 4\)"):
        model.step(inputs_of(3) + 100, targets(*SHORT))


@pytest.mark.parametrize("index", [4.0, -1.0, 1e10, -1e10])
def test_embedding_layer_outside_its_range_is_nan_for_that_sample_in_a_compiled_batch(tmp_path, index):
    model = model_of(tmp_path, EMBEDDING)
    x = inputs_of(4)
    x[:, 5] = (0, 3.9, index, -0.9)
    result = model.step(x, targets(*FULL))
    assert np.isnan(result.logits[:, 0]).tolist() == [False, False, True, False]
    assert np.isnan(result.loss)


SUBCLASSED = f"""{HEAD}
class Own(keras.Model):
    def call(self, inputs):
        return 2 * super().call(inputs)


def build(inputs):
    return Own(ARGUMENTS)
"""


@pytest.mark.parametrize("arguments", ["inputs, x", "inputs=inputs, outputs=x", "list(inputs.values()), x"])
@pytest.mark.parametrize("rows", [3, 4])
def test_functional_subclass_with_a_call_of_its_own_computes_by_it(tmp_path, arguments, rows):
    graph = "    x = layers.Dense(1)(layers.Concatenate()(list(inputs.values())))\n    return"
    source = SUBCLASSED.replace("ARGUMENTS", arguments).replace("    return Own", f"{graph} Own")
    model = model_of(tmp_path, source)
    kernel, x = array(model, "kernel"), inputs_of(rows)
    assert np.allclose(model.step(x, targets(*FULL[:rows])).logits, 2 * x @ kernel, atol=1e-5)
    model.predict(x)


# Randomness and state.

DROPOUT = layered(
    "    def __init__(self):\n        super().__init__()\n        self.seeds = keras.random.SeedGenerator(3)\n"
    "    def call(self, x):\n        return x + keras.random.normal((1, 1), seed=self.seeds)\n"
)


def test_random_numbers_of_a_layer_continue_after_a_restart(tmp_path):
    original = learned(tmp_path, DROPOUT, steps=2)
    restored = model_of(tmp_path, DROPOUT)
    restored.load_weights(original.weights_bytes())
    for rows in (3, 4):
        one, other = (m.step(inputs_of(rows), targets(*FULL[:rows])) for m in (original, restored))
        assert one.logits.tobytes() == other.logits.tobytes()
    assert original.weights_bytes() == restored.weights_bytes()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (layered("    def call(self, x):\n        return x + keras.random.normal((1, 1))\n"), "seed_generator_state"),
        (layered("    def call(self, x):\n        return x + tf.random.normal((1, 1))\n"), "RandomStandardNormal"),
        (layered("    scale = tf.Variable(1.0)\n    def call(self, x):\n        return x * self.scale\n"), "no layer"),
        (layered("    def call(self, x):\n        return ops.reshape(x, (512, 6))\n"), "the model of model:build"),
        (layered("    def call(self, x):\n        raise SystemExit(3)\n"), r"it called sys.exit\(3\)"),
        (linear(head="import sys\nsys.exit()\n"), r"importing model from .* failed: it called sys.exit\(\)"),
        (linear("dtype='mixed_float16'"), "computes layer .* in float16"),
        (linear("dtype='bfloat16'"), "of type bfloat16, wanted float32 or float64"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path, source, problem):
    with pytest.raises(ModelError, match=problem):
        model_of(tmp_path, source).try_step()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("    m = keras.Model(inputs, y)\n    m.compile(loss='mse')\n    return m", "is compiled, which has no effect"),
        ("    return Own(inputs, y)", "defines train_step, which is never called"),
    ],
)
def test_training_of_the_users_own_is_refused_by_name(tmp_path, body, problem):
    own = "class Own(keras.Model):\n    def train_step(self, batch):\n        pass\n"
    with pytest.raises(ModelError, match=problem):
        model_of(tmp_path, f"{HEAD}{own}def build(inputs):\n    y = layers.Dense(1)(inputs['user'])\n{body}\n")


def test_first_step_can_be_tried_for_every_batch_size_and_number_of_labels(tmp_path):
    for labels, size in ((1, 1), (2, 8)):
        (tmp_path / "model.py").write_text(linear().replace("Dense(1", f"Dense({labels}"))
        DenseModel(config_of(labels, size), tmp_path).try_step()


def test_compensation_of_a_penalised_network_leaves_the_gradient_of_a_positive(tmp_path):
    model = model_of(tmp_path, linear("kernel_regularizer=keras.regularizers.L2(0.5)"))
    start, x = model.weights_bytes(), np.repeat(inputs_of(1), 2, axis=0)
    rows = targets_of(samples_of(NEGATIVE, COMPENSATION | {"negative_written": True}), ("label",))
    pair = model.step(x, rows).gradient.sum(axis=0)
    model.load_weights(start)
    assert np.allclose(pair, model.step(x[:1], targets(POSITIVE)).gradient[0], atol=1e-6)
