"""Softmax over the samples of a list: against NumPy, in compiled and short batches, and what is refused."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from pipeline.configuration.config import parse_config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import ConfigError
from pipeline.model.loss.listwise import list_losses
from pipeline.model.loss.targets import Targets, targets_of
from tests.model.loss.test_losses import document_of, model_of, samples_of
from tests.model.test_model import inputs_of

LABEL = {"name": "ranked", "loss": "softmax", "list_column": "item"}
CLOSE = {"policy": "close"}


def targets(
    values: list, lists: list, kinds: list[str] | None = None, weight: list[float] | None = None, **label: Any
) -> Targets:
    samples = samples_of(kinds or ["positive"] * len(values), weight=weight, ranked=values)
    samples = samples.append_column("item", pa.array(lists, pa.string()))
    return targets_of(samples, [LabelConfig(**LABEL | label)])


def expected(y: np.ndarray, z: np.ndarray, lists: list) -> np.ndarray:
    """[n] −y log softmax(z), a list at a time."""
    found = np.zeros(len(y))
    for each in {name for name in lists if name is not None}:
        here = np.array([name == each for name in lists])
        found[here] = y[here] * (np.logaddexp.reduce(z[here]) - z[here])
    return found


def gradient_of(y: np.ndarray, z: np.ndarray, lists: list) -> np.ndarray:
    """[n] Σ y of the list × softmax(z) − y."""
    found = np.zeros(len(y))
    for each in {name for name in lists if name is not None}:
        here = np.array([name == each for name in lists])
        share = np.exp(z[here] - np.logaddexp.reduce(z[here]))
        found[here] = y[here].sum() * share - y[here]
    return found


NAMES = ["a", "b", "a", None, "b", "a", "alone", None]


def test_loss_and_gradient_are_those_of_the_softmax_of_each_list():
    random = np.random.default_rng(1)
    y, z = random.integers(0, 3, 8).astype(np.float32), random.normal(0, 2, 8).astype(np.float32)
    lists = np.array([{"a": 0, "b": 1, None: -1, "alone": 2}[name] for name in NAMES], np.int32)
    outputs = tf.Variable(z)
    with tf.GradientTape() as tape:
        losses = list_losses(tf.constant(y), outputs, tf.constant(lists))
    np.testing.assert_allclose(losses, expected(y, z.astype(np.float64), NAMES), rtol=1e-5, atol=1e-6)
    found = tape.gradient(losses, outputs)
    np.testing.assert_allclose(found, gradient_of(y, z.astype(np.float64), NAMES), rtol=1e-5, atol=1e-6)


def test_extreme_outputs_have_finite_losses_and_gradients():
    outputs = tf.Variable([1e4, -1e4, 3e38, 0.0, -3e38], dtype=tf.float32)
    with tf.GradientTape() as tape:
        losses = list_losses(tf.constant([0.0, 1, 1, 0, 1]), outputs, tf.constant([0, 0, 1, -1, -1], tf.int32))
    np.testing.assert_allclose(losses, [0, 2e4, 0, 0, 0])
    np.testing.assert_allclose(tape.gradient(losses, outputs), [1, -1, 0, 0, 0])


@pytest.mark.parametrize("rows", [4, 3])
def test_step_learns_the_loss_of_the_lists_in_a_compiled_and_in_a_short_batch(tmp_path, rows):
    model, x = model_of(tmp_path, LABEL, samples=CLOSE), inputs_of(4)[:rows]
    z, lists = model.predict(x)[:, 0].astype(np.float64), ["q", "q", "r", "q"][:rows]
    y, weight = np.float32([1, 0, 1, 0])[:rows], [2.0, 1.0, 1.0, 0.5][:rows]
    result = model.step(x, targets(y.tolist(), lists, weight=weight))
    wanted = expected(y * weight, z, lists)
    np.testing.assert_allclose(result.losses[:, 0], wanted, rtol=1e-5, atol=1e-6)
    assert result.loss == pytest.approx(wanted.sum() / sum(weight), rel=1e-5)


def test_two_models_learn_the_same_bytes_and_lists_in_another_order_the_same_gradient(tmp_path):
    x, y, lists = inputs_of(4), [1.0, 0.0, 0.0, 2.0], ["q", "r", "q", "r"]
    first, second, third = (model_of(tmp_path, LABEL, samples=CLOSE) for _ in range(3))
    one = first.step(x, targets(y, lists))
    second.step(x, targets(y, lists))
    assert first.weights_bytes() == second.weights_bytes()
    turned = third.step(x[::-1].copy(), targets(y[::-1], lists[::-1]))
    np.testing.assert_allclose(turned.gradient[::-1], one.gradient, atol=1e-6)


def test_learning_puts_what_was_clicked_first(tmp_path):
    model, random = model_of(tmp_path, LABEL, samples=CLOSE), np.random.default_rng(3)
    for _ in range(150):
        x = random.normal(size=(4, 6)).astype(np.float32)
        best = int(np.argmax(x[:, 0]))
        model.step(x, targets([float(i == best) for i in range(4)], ["q"] * 4))
    x = random.normal(size=(200, 6)).astype(np.float32)
    assert np.corrcoef(model.predict(x)[:, 0], x[:, 0])[0, 1] > 0.9


def test_null_value_and_late_event_are_in_no_list():
    found = targets([1.0, None, 1.0, 0.0], ["q"] * 4, ["positive", "negative", "compensation", "negative"])
    assert found.lists.tolist() == [[0], [-1], [-1], [0]]
    assert found.observed.tolist() == [[True], [False], [False], [True]]
    assert found.positive.tolist() == [[1], [0], [0], [1]]
    assert (found.scored_positive == found.positive).all()


def test_part_of_the_targets_has_the_losses_of_its_own_lists(tmp_path):
    names, y = ["p", "q", "r", "q", None, "r"], [1.0, 0.0, 1.0, 2.0, 1.0, 0.0]
    model, x = model_of(tmp_path, LABEL, samples=CLOSE), inputs_of(6)
    part = targets(y, names).part(2, 6)
    assert part.lists.ravel().tolist() == [2, 1, -1, 2]
    z = model.predict(x)[:, 0].astype(np.float64)
    wanted = expected(np.array(y)[2:], z[2:], names[2:])
    np.testing.assert_allclose(model.losses(x[2:], part)[:, 0], wanted, rtol=1e-5, atol=1e-6)


def test_samples_without_the_column_are_in_no_list():
    found = targets_of(samples_of(["positive"], ranked=[1.0]), [LabelConfig(**LABEL)])
    assert found.lists.tolist() == [[-1]]


def test_label_of_a_list_learns_beside_a_logistic_one_as_alone(tmp_path):
    both = [{"name": "label"}, LABEL]
    model, x = model_of(tmp_path, *both, samples=CLOSE), inputs_of(4)
    columns = {"label": [1, 0, 1, 0], "ranked": [0.0, 1.0, 0.0, 0.0]}
    samples = samples_of(["positive"] * 4, **columns).append_column("item", pa.array(["q"] * 4))
    z = model.predict(x)[:, 1].astype(np.float64)
    result = model.step(x, targets_of(samples, [LabelConfig(**label) for label in both]))
    np.testing.assert_allclose(
        result.losses[:, 1], expected(np.array(columns["ranked"]), z, ["q"] * 4), rtol=1e-5, atol=1e-6
    )


def test_first_step_can_be_tried(tmp_path):
    model_of(tmp_path, {"name": "label"}, LABEL, samples=CLOSE).try_step()


@pytest.mark.parametrize(
    ("label", "sections", "problem"),
    [
        ({"list_column": None}, {}, "label ranked has no list_column and loss softmax"),
        ({"loss": "logistic"}, {}, "label ranked has list_column item and loss logistic. hint: softmax needs one"),
        ({"list_column": "session"}, {}, "list_column session, which is a column that impressions lack"),
        ({"list_column": "price"}, {}, "list_column price, which is of type float. hint: .* string, int, uint"),
        ({}, {"samples": {"policy": "wait"}}, "policy of its feedback is wait, .* hint: policy = 'close'"),
        ({}, {"samples": {"policy": "fake_negative"}}, "policy of its feedback is fake_negative"),
        ({}, {"samples": CLOSE | {"negative_rate": 0.5}}, "negative_rate is 0.5, but label ranked has loss softmax"),
        ({}, {"logs": {"shards": 2}}, r"id choose one of 2 shards, .* hint: events.partition_by = \[\"item\"\]"),
        ({"correction": "importance"}, {}, "label ranked has correction importance and loss softmax"),
        ({"range": (-1, 1)}, {}, "range -1 to 1, loss softmax allows 0 to 1e"),
    ],
)
def test_list_that_cannot_be_honoured_is_refused(label, sections, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_config(document_of(LABEL | label, **{"samples": CLOSE, **sections}))


def test_label_with_a_target_takes_its_list():
    config = parse_config(document_of(LABEL, {"name": "coarse", "target": "ranked"}, samples=CLOSE))
    assert [(label.loss, label.list_column) for label in config.outputs] == [("softmax", "item")] * 2
