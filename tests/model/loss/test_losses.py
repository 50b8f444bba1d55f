"""Labels with losses of their own: against plain Keras training, compensations, nulls, and what cannot be honoured."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.config import Config, parse_config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import ConfigError, InputError, ModelError
from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel
from pipeline.model.identity import identity_of, serving_digest
from pipeline.model.loss.targets import Targets, targets_of
from pipeline.model.network.weights import unpack
from pipeline.model.training.step import INITIAL_ACCUMULATOR
from tests.model.test_model import LINEAR, RATE, inputs_of

OWN = """
import tensorflow as tf
def pinball(target, output):
    error = target - output
    return tf.maximum(0.9 * error, -0.1 * error)
def wrong(target, output):
    return tf.reduce_mean(target - output)
def logarithmic(target, output):
    return tf.square(tf.math.log(target) - output)
"""


def document_of(*labels: dict, **sections: Any) -> dict:
    """A configuration with these `[[labels]]`; all after the first are float columns of the click."""
    clicks = {"id": "string"} | {label["name"]: "float" for label in labels[1:]}
    return {
        "events": {
            "key": ["id"],
            "impressions": {"columns": {"id": "string", "user": "int", "item": "string", "price": "float"}},
            "clicks": {"columns": clicks},
        },
        "labels": list(labels),
        "fields": [
            {"name": "user", "columns": ["user"], "dim": 3},
            {"name": "item", "columns": ["item"], "dim": 2},
        ],
        "dense": [{"name": "price", "column": "price"}],
        "model": {"batch_size": 4, "learning_rate": RATE},
        **sections,
    }


def config_of(*labels: dict, **sections: Any) -> Config:
    return parse_config(document_of(*labels, **sections))


def model_of(root: Path, *labels: dict, source: str = LINEAR, **sections: Any) -> DenseModel:
    (root / "model.py").write_text(source.replace("LABELS", str(len(labels))) + OWN)
    return DenseModel(config_of(*labels, **sections), root)


def samples_of(
    kinds: list[str], written: bool = False, weight: list[float] | None = None, **labels: list
) -> pa.RecordBatch:
    """Samples of these kinds; `written`: every compensation reverses a negative."""
    n = len(kinds)
    columns: dict[str, pa.Array] = {name: pa.array(values, pa.float32()) for name, values in labels.items()}
    columns["weight"] = pa.array(weight or [1.0] * n, pa.float32())
    columns["rate"] = pa.array([1.0] * n, pa.float32())
    columns["kind"] = pa.array(kinds)
    columns["negative_written"] = pa.array([written] * n)
    return pa.RecordBatch.from_pydict(columns)


def targets(labels: list[dict], *arguments: Any, **columns: Any) -> Targets:
    return targets_of(samples_of(*arguments, **columns), [LabelConfig(**label) for label in labels])


FOUR = ["positive", "negative", "positive", "negative"]
WATCH = [3.0, 0.0, 1.5, 0.0]


@pytest.mark.parametrize(
    ("label", "loss"),
    [
        ({"loss": "logistic"}, keras.losses.BinaryCrossentropy(from_logits=True)),
        ({"loss": "squared"}, keras.losses.MeanSquaredError()),
        ({"loss": "huber"}, keras.losses.Huber(1.0)),
        ({"loss": "huber", "delta": 0.25}, keras.losses.Huber(0.25)),
        ({"loss": "poisson"}, lambda y, z: keras.ops.mean(keras.losses.poisson(y, keras.ops.exp(z)))),
        ({"loss": "model:pinball"}, lambda y, z: keras.ops.mean(keras.ops.maximum(0.9 * (y - z), 0.1 * (z - y)))),
    ],
    ids=lambda value: value.get("loss", "") if isinstance(value, dict) else "",
)
def test_label_learns_as_plain_keras_with_that_loss(tmp_path, label, loss):
    label = {"name": "watch", **label}
    values = [min(v, 1.0) for v in WATCH] if label["loss"] == "logistic" else WATCH
    model, plain = model_of(tmp_path, label), keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    start = unpack(model.weights_bytes())
    plain.set_weights([start["variable/0/kernel"], start["variable/1/bias"]])
    optimizer = keras.optimizers.Adagrad(RATE, initial_accumulator_value=INITIAL_ACCUMULATOR)
    plain.compile(optimizer, loss)
    order = [3, 4, 0, 1, 2, 5]  # the user's model puts item before user
    for seed in range(3):
        x = inputs_of(4, seed=seed)
        result = model.step(x, targets([label], FOUR, watch=values))
        expected = plain.train_on_batch(x[:, order], np.float32(values)[:, None])
        assert result.loss == pytest.approx(float(expected), rel=1e-4)
    found = unpack(model.weights_bytes())
    for name, array in zip(("variable/0/kernel", "variable/1/bias"), plain.get_weights(), strict=True):
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


LOSSES = [{"loss": "squared"}, {"loss": "huber"}, {"loss": "poisson"}, {"loss": "model:pinball"}]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["loss"])
def test_compensation_leaves_the_gradient_of_the_new_value(tmp_path, loss):
    label = {"name": "watch", **loss}
    model = model_of(tmp_path, label)
    start, x = model.weights_bytes(), np.repeat(inputs_of(1), 2, axis=0)
    both = targets([label], ["negative", "compensation"], written=True, watch=[0.0, 2.5], weight=[2.0, 2.0])
    pair = model.step(x, both)
    model.load_weights(start)
    alone = model.step(x[:1], targets([label], ["positive"], watch=[2.5], weight=[2.0]))
    np.testing.assert_allclose(pair.gradient.sum(axis=0), alone.gradient[0], atol=1e-5)
    assert pair.losses.sum() == pytest.approx(alone.losses.sum(), abs=1e-5)


def test_compensation_whose_negative_was_left_out_adds_the_new_value_only():
    found = targets([{"name": "watch", "loss": "squared"}], ["compensation"], watch=[2.5])
    assert (found.positive.tolist(), found.negative.tolist(), found.value.tolist()) == ([[1]], [[0]], [[2.5]])


MIXED = [{"name": "label"}, {"name": "watch", "loss": "squared", "weight": 0.5}]


def test_labels_of_different_losses_learn_together_with_their_weights(tmp_path):
    model = model_of(tmp_path, *MIXED)
    kernel, x = unpack(model.weights_bytes())["variable/0/kernel"].astype(np.float64), inputs_of(4)
    result = model.step(x, targets(MIXED, FOUR, label=[1, 0, 1, 0], watch=WATCH))
    z = x[:, [3, 4, 0, 1, 2, 5]] @ kernel
    click = np.logaddexp(0, -z[:, 0]) * [1, 0, 1, 0] + np.logaddexp(0, z[:, 0]) * [0, 1, 0, 1]
    watch = 0.5 * (z[:, 1] - WATCH) ** 2
    np.testing.assert_allclose(result.losses, np.stack([click, watch], axis=1), atol=1e-5)
    assert result.loss == pytest.approx((click + watch).sum() / 4, rel=1e-5)


def test_weight_of_a_logistic_label_scales_its_gradient(tmp_path):
    plain, weighted = [{"name": "label"}], [{"name": "label", "weight": 3.0}]
    one, three = (
        model_of(tmp_path, *labels).step(inputs_of(4), targets(labels, FOUR, label=[1, 0, 1, 0]))
        for labels in (plain, weighted)
    )
    np.testing.assert_allclose(three.gradient, 3 * one.gradient, rtol=1e-5)


@pytest.mark.parametrize("label", [{"loss": "logistic"}, *LOSSES, {"loss": "model:logarithmic", "range": (1.0, 9.0)}])
def test_null_label_adds_neither_loss_nor_gradient(tmp_path, label):
    labels = [{"name": "label"}, {"name": "watch", **label}]
    model = model_of(tmp_path, *labels)
    start = model.weights_bytes()
    some = targets(labels, FOUR, label=[1, 0, 1, 0], watch=[1.0, None, None, None])
    found = model.step(inputs_of(4), some)
    model.load_weights(start)
    # The label of the first sample only, learned by a batch of its own.
    first = model.step(inputs_of(4)[:1], targets(labels, FOUR[:1], label=[1.0], watch=[1.0]))
    model.load_weights(start)
    alone = model.step(inputs_of(4)[1:], targets(labels, FOUR[1:], label=[0, 1, 0], watch=[None] * 3))
    np.testing.assert_allclose(found.gradient, np.concatenate([first.gradient, alone.gradient]), atol=1e-5)
    assert np.isfinite(found.gradient).all()
    assert some.observed.tolist() == [[True, True], [True, False], [True, False], [True, False]]
    if found.losses is not None:
        assert found.losses[1:, 1].tolist() == [0, 0, 0]


def test_null_in_a_compensation_touches_that_label_not_at_all():
    found = targets(MIXED, ["compensation"], written=True, label=[None], watch=[2.0])
    assert (found.positive[0, 0], found.negative[0, 0]) == (0, 0)
    assert (found.scored_positive[0, 0], found.scored_negative[0, 0]) == (0, 0)
    assert (found.positive[0, 1], found.negative[0, 1]) == (0.5, -0.5)


def test_served_prediction_is_probability_value_or_count(tmp_path):
    labels = [{"name": "label"}, {"name": "watch", "loss": "squared"}, {"name": "visits", "loss": "poisson"}]
    model = model_of(tmp_path, *labels)
    kernel = unpack(model.weights_bytes())["variable/0/kernel"]
    z = inputs_of(5)[:, [3, 4, 0, 1, 2, 5]] @ kernel
    expected = np.stack([1 / (1 + np.exp(-z[:, 0])), z[:, 1], np.exp(z[:, 2])], axis=1)
    np.testing.assert_allclose(model.predict(inputs_of(5)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("label", "value", "problem"),
    [
        ({"loss": "logistic"}, 1.5, "sample 0 of a batch has watch 1.5, wanted 0 to 1"),
        ({"loss": "poisson"}, -1.0, "has watch -1.0, wanted 0 to 1e"),
        ({"loss": "squared"}, float("nan"), "has watch nan"),
        ({"loss": "huber"}, float("inf"), "has watch inf"),
    ],
)
def test_value_outside_the_domain_of_its_loss_is_refused(label, value, problem):
    with pytest.raises(InputError, match=problem):
        targets([{"name": "watch", **label}], ["positive"], watch=[value])


def test_sample_of_left_out_negatives_is_refused_for_a_loss_without_correction():
    batch = samples_of(["positive"], watch=[1.0])
    batch = batch.set_column(batch.schema.get_field_index("rate"), "rate", pa.array([0.5], pa.float32()))
    with pytest.raises(InputError, match=r"sample 0 of a batch has rate 0.5, wanted 1 for label watch of loss squared"):
        targets_of(batch, [LabelConfig(name="watch", loss="squared")])


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"labels": [{"name": "label", "loss": "hinge"}]}, "labels.0.loss: loss 'hinge' is unknown. known: logistic"),
        ({"labels": [{"name": "label", "delta": 1.0}]}, "label label has delta and loss logistic"),
        ({"labels": [{"name": "label", "loss": "huber", "delta": 0.0}]}, "labels.0.delta: .* greater than 0"),
        ({"labels": [{"name": "label", "weight": 0.0}]}, "labels.0.weight: .* greater than 0"),
        ({"labels": [{"name": "label", "range": [0, 1]}]}, "has a range, but it is whether there is an event"),
        ({"labels": [MIXED[0], {"name": "watch", "range": [0, 2]}]}, "range 0 to 2, loss logistic allows 0 to 1"),
        ({"labels": [MIXED[0], {"name": "watch", "loss": "poisson", "range": [-1, 2]}]}, "poisson allows 0 to 1e"),
        ({"labels": [MIXED[0], {"name": "watch", "loss": "squared", "range": [3, 2]}]}, "smallest value comes first"),
        ({"labels": [MIXED[0], MIXED[0]]}, "label label is declared twice"),
        ({"labels": [MIXED[0], {"name": "other"}]}, "label other is not a numeric column of clicks"),
        ({"labels": [{"name": "weight"}]}, "label weight has the name of a column of samples"),
        ({"labels": [{"name": "price"}]}, "impression column price has the name of a column of samples"),
        ({"samples": {"labels": ["label"]}}, r"samples.labels and \[\[labels\]\] both declare labels"),
        ({"samples": {"label_ranges": {}}}, "leave samples.label_ranges out"),
        ({"samples": {"negative_rate": 0.5}}, "negative_rate is 0.5, but label watch has loss squared"),
    ],
)
def test_bad_labels_are_refused(changed, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_config(document_of(*MIXED) | changed)


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        ("model:none", "defines no function none"),
        ("model:wrong", "loss model:wrong of label watch failed: .* it takes target .* and returns the loss"),
    ],
)
def test_loss_of_the_users_own_that_does_not_fit_is_refused(tmp_path, loss, problem):
    with pytest.raises(ModelError, match=problem):
        model_of(tmp_path, {"name": "watch", "loss": loss})


def test_labels_with_default_settings_have_the_identity_of_the_same_names_in_samples(tmp_path):
    model = model_of(tmp_path, {"name": "label"})
    new, settings = config_of({"name": "label"}), document_of({"name": "label"})
    old = parse_config({name: section for name, section in settings.items() if name != "labels"})
    plan = FeaturePlan(new, tmp_path)
    assert identity_of(new, plan, model) == identity_of(old, plan, model)
    assert serving_digest(new, plan, model) == serving_digest(old, plan, model)


@pytest.mark.parametrize(
    ("label", "served"),
    [({"weight": 2.0}, True), ({"loss": "squared"}, False), ({"loss": "poisson"}, False)],
)
def test_identity_changes_with_the_loss_and_the_served_one_if_predictions_do(tmp_path, label, served):
    before, now = config_of({"name": "label"}), config_of({"name": "label", **label})
    model, plan = model_of(tmp_path, {"name": "label"}), FeaturePlan(before, tmp_path)
    assert identity_of(before, plan, model)["labels"] != identity_of(now, plan, model)["labels"]
    assert (serving_digest(before, plan, model) == serving_digest(now, plan, model)) is served
