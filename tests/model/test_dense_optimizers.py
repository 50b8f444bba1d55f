"""The dense network's optimizers: against plain Keras training; restored state, schedules, clipping, bad settings."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipeline.configuration.config import Config, parse_config
from pipeline.errors import ConfigError, ModelError
from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel
from pipeline.model.identity import identity_of
from pipeline.model.network.weights import unpack
from tests.model.loss.test_losses import document_of
from tests.model.test_model import LINEAR, NEGATIVE, POSITIVE, inputs_of, targets

ORDER = [3, 4, 0, 1, 2, 5]
"""The user's model puts item before user."""
SHORT = [POSITIVE, NEGATIVE, NEGATIVE]
DEEP = """
import keras
from keras import layers
def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    x = layers.BatchNormalization()(layers.Dense(8, "relu")(x))
    x = layers.LayerNormalization()(layers.Dropout(0.3)(x))
    return keras.Model(inputs, layers.Dense(1, kernel_constraint=keras.constraints.MaxNorm(0.5))(x))
"""


def config_of(optimizer: dict | None, **model: Any) -> Config:
    settings = {"batch_size": 4} | model | ({"optimizer": optimizer} if optimizer else {})
    return parse_config(document_of({"name": "label"}, model=settings))


def model_of(root: Path, optimizer: dict | None, source: str = LINEAR, **model: Any) -> DenseModel:
    (root / "model.py").write_text(source.replace("LABELS", "1"))
    return DenseModel(config_of(optimizer, **model), root)


def mean_loss(y: Any, z: Any) -> Any:
    """Over the batch size, as every step has it, also one of three samples."""
    return keras.ops.sum(keras.losses.binary_crossentropy(y, z, from_logits=True)) / 4


KINDS = keras.optimizers
ALIKE = [
    ({"kind": "adagrad", "learning_rate": 0.1, "initial_accumulator": 0.5}, KINDS.Adagrad(0.1, 0.5)),
    ({"kind": "adagrad", "learning_rate": 0.1, "clip_value": 0.05}, KINDS.Adagrad(0.1, clipvalue=0.05)),
    ({"kind": "sgd", "learning_rate": 0.5}, KINDS.SGD(0.5)),
    (
        {"kind": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        KINDS.SGD(0.01, 0.9, True, weight_decay=0.1),
    ),
    ({"kind": "adam", "learning_rate": 0.02, "beta1": 0.8}, KINDS.Adam(0.02, beta_1=0.8)),
    ({"kind": "adam", "clip_norm": 0.1, "epsilon": 1.0}, KINDS.Adam(0.001, epsilon=1.0, global_clipnorm=0.1)),
    ({"kind": "adamax", "learning_rate": 0.02}, KINDS.Adamax(0.02)),
    ({"kind": "nadam", "learning_rate": 0.02}, KINDS.Nadam(0.02)),
    ({"kind": "adamw", "learning_rate": 0.02, "weight_decay": 0.3}, KINDS.AdamW(0.02, 0.3)),
    ({"kind": "lion", "learning_rate": 0.02, "weight_decay": 0.3}, KINDS.Lion(0.02, weight_decay=0.3)),
    ({"kind": "rmsprop", "momentum": 0.5, "centered": True}, KINDS.RMSprop(0.001, momentum=0.5, centered=True)),
    (
        {"kind": "ftrl", "learning_rate": 0.1, "beta": 1.0, "l1": 0.01, "l2": 0.1},
        KINDS.Ftrl(0.1, beta=1.0, l1_regularization_strength=0.01, l2_regularization_strength=0.1),
    ),
]


@pytest.mark.parametrize(("optimizer", "of_keras"), ALIKE, ids=[optimizer["kind"] for optimizer, _ in ALIKE])
def test_optimizer_learns_as_that_of_keras_and_continues_after_a_restart(tmp_path, optimizer, of_keras):
    model, plain = model_of(tmp_path, optimizer), keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    start = unpack(model.weights_bytes())
    plain.set_weights([start["variable/0/kernel"], start["variable/1/bias"]])
    plain.compile(of_keras, mean_loss, run_eagerly=True)
    for seed in range(3):
        if seed == 2:  # a restart from what a version holds
            stored = model.weights_bytes()
            model = model_of(tmp_path, optimizer)
            model.load_weights(stored)
        model.step(inputs_of(3, seed=seed), targets(*SHORT))
        plain.train_on_batch(inputs_of(3, seed=seed)[:, ORDER], np.float32([[1], [0], [0]]))
    found = unpack(model.weights_bytes())
    for name, array in zip(("variable/0/kernel", "variable/1/bias"), plain.get_weights(), strict=True):
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("kind", ["adagrad", "sgd", "adam", "adamax", "nadam", "adamw", "lion", "rmsprop", "ftrl"])
def test_network_with_normalisation_and_dropout_continues_to_the_bit_and_serves_the_same(tmp_path, kind):
    optimizer = {"kind": kind, "schedule": {"kind": "cosine", "decay_samples": 20, "warm_up_samples": 5}}
    model = model_of(tmp_path, optimizer, DEEP)
    for seed in range(2):
        model.step(inputs_of(3, seed=seed), targets(*SHORT))
    restored = model_of(tmp_path, optimizer, DEEP)
    restored.load_weights(model.weights_bytes())
    for each in (model, restored):
        each.step(inputs_of(4, seed=9), targets(*SHORT, POSITIVE))
    assert restored.weights_bytes() == model.weights_bytes()
    served = model_of(tmp_path, None, DEEP)
    served.load_serving(model.serving_bytes())
    assert served.predict(inputs_of(5)).tobytes() == model.predict(inputs_of(5)).tobytes()
    assert {name.partition("/")[0] for name in unpack(model.serving_bytes())} == {"variable"}


def moved(model: DenseModel, steps: int) -> list[float]:
    """How far the bias moves in each step of four samples."""
    biases = [unpack(model.weights_bytes())["variable/1/bias"][0]]
    for _ in range(steps):
        model.step(np.zeros((4, 6), np.float32), targets(*[POSITIVE] * 4))
        biases.append(unpack(model.weights_bytes())["variable/1/bias"][0])
    return [float(b - a) for a, b in itertools.pairwise(biases)]


def test_schedule_counts_samples_and_continues_after_a_restart(tmp_path):
    schedule = {"kind": "piecewise", "boundaries": [9, 13], "factors": [0.5, 0.25], "warm_up_samples": 8}
    optimizer = {"kind": "lion", "learning_rate": 0.125, "schedule": schedule}
    first = model_of(tmp_path, optimizer)
    found = moved(first, 2)
    second = model_of(tmp_path, optimizer)
    second.load_weights(first.weights_bytes())
    assert [*found, *moved(second, 2)] == [0.0625, 0.125, 0.0625, 0.03125]


def test_adagrad_follows_a_schedule_too(tmp_path):
    plain = moved(model_of(tmp_path, {"kind": "adagrad"}), 2)
    halved = {"kind": "adagrad", "schedule": {"kind": "piecewise", "boundaries": [8], "factors": [0.5]}}
    scheduled = moved(model_of(tmp_path, halved), 2)
    assert scheduled[0] == pytest.approx(plain[0], rel=1e-5)
    assert scheduled[1] == pytest.approx(plain[1] / 2, rel=0.01)


def test_adagrad_by_name_is_the_default_to_the_bit(tmp_path):
    default, named = model_of(tmp_path, None), model_of(tmp_path, {"kind": "adagrad"})
    for model in (default, named):
        model.step(inputs_of(4), targets(*SHORT, POSITIVE))
    assert default.weights_bytes() == named.weights_bytes()
    plan = FeaturePlan(config_of(None), tmp_path)
    one, other = (identity_of(config_of(o), plan, default) for o in (None, {"kind": "adagrad"}))
    assert one == other


def test_changed_optimizer_needs_a_migration_and_starts_with_fresh_state(tmp_path):
    old = model_of(tmp_path, {"kind": "adam"})
    old.step(inputs_of(3), targets(*SHORT))
    for changed in ({"kind": "adam", "learning_rate": 0.5}, {"kind": "nadam"}, None):
        new = model_of(tmp_path, changed)
        fresh, theirs = unpack(new.weights_bytes()), unpack(old.weights_bytes())
        if changed is None or changed["kind"] == "nadam":
            with pytest.raises(ModelError, match="pass --migrate"):
                new.load_weights(old.weights_bytes())
        new.load_matching(old.weights_bytes(), optimizer=False)
        for name, array in unpack(new.weights_bytes()).items():
            expected = theirs if name.startswith("variable") else fresh
            assert array.tolist() == expected[name].tolist(), name


def test_state_of_an_optimizer_whose_network_changed_is_retained_completely_or_not_at_all(tmp_path):
    source = "import keras\ndef build(inputs):\n    x = keras.layers.Dense(SIZE)(inputs['user'])\n"
    source += "    return keras.Model(inputs, keras.layers.Dense(1)(x))\n"
    old = model_of(tmp_path, {"kind": "adam"}, source.replace("SIZE", "4"))
    old.step(inputs_of(3), targets(*SHORT))
    new = model_of(tmp_path, {"kind": "adam"}, source.replace("SIZE", "3"))
    fresh = unpack(new.weights_bytes())
    new.load_matching(old.weights_bytes())
    for name, array in unpack(new.weights_bytes()).items():
        if name.startswith("optimizer"):
            assert array.tolist() == fresh[name].tolist(), name


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"optimizer": {"kind": "adadelta"}}, "model.optimizer: kind is one of adagrad, sgd, adam"),
        ({"optimizer": {"kind": "adam", "weight_decay": 0.1}}, "optimizer.weight_decay: unknown key"),
        ({"optimizer": {"kind": "adam", "use_ema": True}}, "optimizer.use_ema: unknown key"),
        ({"optimizer": {"kind": "sgd", "loss_scale_factor": 2.0}}, "optimizer.loss_scale_factor: unknown key"),
        ({"optimizer": {"kind": "adam", "learning_rate": 0.0}}, "optimizer.learning_rate: .* greater than 0"),
        ({"optimizer": {"kind": "adam", "beta1": 1.0}}, "optimizer.beta1: .* less than 1"),
        ({"optimizer": {"kind": "sgd", "nesterov": True}}, "nesterov has no effect without momentum"),
        ({"optimizer": {"kind": "lion", "clip_norm": 1.0, "clip_value": 1.0}}, "exclude each other"),
        (
            {"optimizer": {"kind": "adam"}, "learning_rate": 0.1},
            "model.learning_rate is that of adagrad, the optimizer is adam",
        ),
        ({"optimizer": {"learning_rate": 0.1}, "learning_rate": 0.1}, "both set the learning rate"),
        ({"optimizer": {"schedule": {"kind": "step"}}}, "schedule: kind is one of constant, cosine"),
        ({"optimizer": {"schedule": {"kind": "cosine"}}}, "schedule.decay_samples: missing"),
        ({"optimizer": {"schedule": {"kind": "cosine", "decay_samples": 9, "lowest": 0}}}, "lowest: .* greater than 0"),
        ({"optimizer": {"schedule": {"warm_up_samples": 0}}}, "warm_up_samples: .* greater than or equal to 1"),
        (
            {"optimizer": {"schedule": {"kind": "piecewise", "boundaries": [1, 2], "factors": [0.5]}}},
            "2 boundaries and 1 factors",
        ),
        (
            {"optimizer": {"schedule": {"kind": "piecewise", "boundaries": [2, 2], "factors": [0.5, 0.1]}}},
            "do not ascend",
        ),
    ],
)
def test_bad_settings_of_an_optimizer_are_refused(model, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_config(document_of({"name": "label"}, model=model))


def test_squared_gradients_are_found_in_the_state_of_each_optimizer_that_has_them(tmp_path):
    found = {}
    for kind in ("adagrad", "adam", "nadam", "adamw", "rmsprop", "ftrl", "sgd", "adamax", "lion"):
        model = model_of(tmp_path, {"kind": kind})
        model.step(inputs_of(3, seed=1), targets(*SHORT))
        curvature, arrays = model.curvature, unpack(model.weights_bytes())
        assert list(curvature.squares) == ["variable/0/kernel", "variable/1/bias"]
        found[kind] = [curvature.of(name, arrays) for name in curvature.squares]
    assert [found.pop(kind) for kind in ("sgd", "adamax", "lion")] == [[None, None]] * 3
    wanted = np.concatenate([squares.ravel() for squares in found["adagrad"]])
    assert wanted.max() > 1e-3
    for kind, (kernel, bias) in found.items():
        squares = np.concatenate([kernel.ravel(), bias.ravel()])
        np.testing.assert_allclose(squares / squares.max(), wanted / wanted.max(), atol=1e-3, err_msg=kind)
