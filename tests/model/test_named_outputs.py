"""Models with an output by name for each label."""

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.model.dense import DenseModel
from tests.model.test_model import inputs_of, model_of, targets

NAMED = """
import keras
from keras import layers, ops
def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    label = layers.Dense(1, kernel_initializer="ones")(x)
    bought = layers.Dense(1, kernel_initializer=keras.initializers.Constant(-0.5))(x)
    return RESULT
"""
BOTH = "keras.Model(inputs, {'label': label, 'bought': bought})"


def assert_predicts(model: DenseModel, *logits: np.ndarray) -> None:
    np.testing.assert_allclose(model.predict(inputs_of(5)), 1 / (1 + np.exp(-np.stack(logits, axis=1))), rtol=1e-5)


def named(result: str = BOTH) -> str:
    return NAMED.replace("RESULT", result)


@pytest.mark.parametrize(
    "result",
    [
        BOTH,
        "keras.Model(inputs, {'bought': bought, 'label': label})",
        "keras.Model(inputs, {'bought': bought[:, 0], 'label': label})",
        "keras.Model(list(inputs.values()), {'bought': bought, 'label': ops.squeeze(label, -1)})",
    ],
)
def test_named_outputs_are_the_logits_in_the_order_of_the_labels(tmp_path, result):
    model = model_of(tmp_path, named(result), labels=2)
    assert_predicts(model, inputs_of(5).sum(axis=1), -0.5 * inputs_of(5).sum(axis=1))


def test_model_of_a_user_defined_class_may_return_outputs_by_name(tmp_path):
    source = """
import keras
class Towers(keras.Model):
    def __init__(self):
        super().__init__()
        self.click = keras.layers.Dense(1, kernel_initializer="ones")
        self.purchase = keras.layers.Dense(1, kernel_initializer="ones")
    def call(self, inputs):
        return {"bought": self.purchase(inputs["user"]), "label": self.click(inputs["item"])}
def build(inputs):
    return Towers()
"""
    model = model_of(tmp_path, source, labels=2)
    assert_predicts(model, inputs_of(5)[:, 3:5].sum(axis=1), inputs_of(5)[:, :3].sum(axis=1))


def test_named_outputs_learn_the_bytes_of_the_same_outputs_side_by_side(tmp_path):
    row = {"kind": "positive", "label": 1.0}
    learned = []
    for result in (BOTH, "keras.Model(inputs, layers.Concatenate()([label, bought]))"):
        model = model_of(tmp_path, named(result), labels=2)
        model.step(inputs_of(2), targets(row, row, labels=("label", "bought")))
        learned.append(model.weights_bytes())
    assert learned[0] == learned[1]


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (
            "keras.Model(inputs, {'label': label})",
            "returns the outputs label, wanted one for each of the labels label, bought",
        ),
        (
            "keras.Model(inputs, {'label': label, 'bougth': bought})",
            "returns the outputs label, bougth, wanted one for each of the labels label, bought",
        ),
        ("keras.Model(inputs, {'label': label, 'bought': inputs['user']})", r"output bought .* is \[None, 3\], wanted"),
        ("keras.Model(inputs, {'label': label, 'bought': [bought, bought]})", "output bought .* is list, wanted"),
        (
            "keras.Model(inputs, {'label': label, 'bought': layers.Dense(1, 'sigmoid')(bought)})",
            "output bought of the model of model:build ends in a sigmoid, wanted logits",
        ),
    ],
)
def test_named_output_that_does_not_fit_is_refused(tmp_path, result, problem):
    with pytest.raises(ModelError, match=problem):
        model_of(tmp_path, named(result), labels=2)
