"""The term over lists beside a log loss: against plain TensorFlow in float64, in every batch, and what is refused."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from pipeline.configuration.config import parse_config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import ConfigError
from pipeline.model.loss.list_terms import ListTerm, list_term_losses, list_terms_of
from pipeline.model.loss.targets import targets_of
from tests.model.loss.test_losses import document_of, model_of, samples_of
from tests.model.test_model import inputs_of

FINE = {"name": "label"}
COARSE = {"name": "coarse", "target": "label", "teacher": "label", "list_column": "item", "listwise": 0.5}
CLOSE = {"policy": "close"}
LISTS = np.array([0, 1, 0, -1, 1, 0, 3, -1], np.int32)


def of_lists(z: tf.Tensor, target: tf.Tensor, weights: tf.Tensor, lists: np.ndarray) -> tf.Tensor:
    """The summed terms of weight 1, a list at a time, as the formula has them."""
    total = tf.constant(0.0, z.dtype)
    for each in set(lists.tolist()) - {-1}:
        here = np.flatnonzero(lists == each)
        p, q, v = tf.sigmoid(tf.gather(z, here)), tf.gather(target, here), tf.gather(weights, here)
        if float(tf.reduce_sum(q)) > 0:
            total -= tf.reduce_sum(v * q / tf.reduce_sum(q) * tf.math.log(p / tf.reduce_sum(p)))
    return total


@pytest.mark.parametrize("teacher", [0, None])
def test_loss_and_gradient_in_float64_are_those_of_the_formula_and_none_flows_into_the_teacher(teacher):
    random = np.random.default_rng(1)
    outputs, weights = tf.constant(random.normal(0, 2, (8, 2))), tf.constant(random.random((8, 2)) + 0.1)
    positive = weights * random.integers(0, 2, (8, 2))
    lists = np.stack([np.full(8, -1, np.int32), LISTS], axis=1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(outputs)
        losses = list_term_losses([ListTerm(1, teacher, 0.7)], outputs, positive, weights, tf.constant(lists))
        target = (positive / weights)[:, 1] if teacher is None else tf.stop_gradient(tf.sigmoid(outputs[:, 0]))
        wanted = 0.7 * of_lists(outputs[:, 1], target, weights[:, 1], LISTS)
    assert losses.dtype == tf.float64
    np.testing.assert_allclose(tf.reduce_sum(losses), wanted, rtol=1e-12)
    found = tape.gradient(losses, outputs).numpy()
    np.testing.assert_allclose(found, tape.gradient(wanted, outputs), rtol=1e-10, atol=1e-13)
    assert np.abs(found[:, 1]).max() > 0.01
    assert not found[:, 0].any()


def test_the_term_is_smallest_at_the_probabilities_of_the_teacher():
    teacher = np.array([-2.0, 0.5, 1.0, -4.0])
    outputs = tf.Variable(np.stack([teacher, teacher], axis=1))
    lists, ones = tf.zeros((4, 2), tf.int32), tf.ones((4, 2), tf.float64)
    with tf.GradientTape() as tape:
        losses = list_term_losses([ListTerm(1, 0, 1.0)], outputs, ones, ones, lists)
    np.testing.assert_allclose(tape.gradient(losses, outputs), np.zeros((4, 2)), atol=1e-14)


def test_extreme_outputs_and_a_list_without_a_click_have_finite_losses_and_gradients():
    outputs = tf.Variable(np.float32([[0, 3e38], [0, -3e38], [0, -1e30], [0, -1e30], [0, 5]]))
    lists = tf.constant([[-1, i] for i in (0, 0, 1, 1, 2)], tf.int32)
    positive, weights = tf.constant(np.float32([[0, y] for y in (1, 0, 1, 0, 0)])), tf.ones((5, 2))
    with tf.GradientTape() as tape:
        losses = list_term_losses([ListTerm(1, None, 1.0)], outputs, positive, weights, lists)
    np.testing.assert_allclose(losses[:, 1], [0, 0, np.log(2), 0, 0], atol=1e-6)
    np.testing.assert_allclose(tape.gradient(losses, outputs)[:, 1], [0, 0, -0.5, 0.5, 0], atol=1e-6)


def samples(clicks, lists, kinds=None):
    batch = samples_of(kinds or ["positive" if click else "negative" for click in clicks], label=clicks)
    return batch.append_column("item", pa.array(lists, pa.string()))


@pytest.mark.parametrize("rows", [4, 3])
def test_step_adds_the_term_of_the_lists_of_its_batch_to_the_own_and_the_soft_loss(tmp_path, rows):
    model, x = model_of(tmp_path, FINE, COARSE, samples=CLOSE), inputs_of(4)[:rows]
    clicks, lists = [1.0, 0.0, 0.0, 1.0][:rows], ["q", "q", "r", "q"][:rows]
    z = tf.constant(np.asarray(model._logits(x), np.float64))
    y, one = tf.constant(clicks, tf.float64), tf.ones(rows, tf.float64)
    p = tf.sigmoid(z[:, 0])
    own = tf.nn.sigmoid_cross_entropy_with_logits(tf.stack([y, y], axis=1), z)
    soft = tf.nn.sigmoid_cross_entropy_with_logits(p, z[:, 1])
    term = of_lists(z[:, 1], p, one, np.array([0, 0, 1, 0][:rows]))
    wanted = tf.reduce_sum(own) + tf.reduce_sum(soft) + 0.5 * term
    result = model.step(x, targets_of(samples(clicks, lists), model._labels))
    assert result.sample_loss * rows == pytest.approx(float(wanted), rel=1e-5)
    assert float(term) > 0.1


def test_a_late_event_is_in_no_list_and_its_own_loss_is_learned():
    labels = parse_config(document_of(FINE, samples=CLOSE) | {"labels": [FINE, COARSE]}).outputs
    found = targets_of(samples([1.0, 0.0, 1.0], ["q"] * 3, ["positive", "negative", "compensation"]), labels)
    assert found.lists.tolist() == [[-1, 0], [-1, 0], [-1, -1]]
    assert found.observed.all()
    assert found.positive[:, 1].tolist() == [1, 0, 1]


def test_the_teacher_is_the_default_target_and_values_can_be_chosen():
    labels = [LabelConfig(**FINE), LabelConfig(**COARSE)]
    assert list_terms_of(labels) == (ListTerm(1, 0, 0.5),)
    by_value = LabelConfig(**COARSE | {"listwise_target": "value"})
    assert list_terms_of([labels[0], by_value]) == (ListTerm(1, None, 0.5),)
    alone = LabelConfig(name="label", list_column="item", listwise=2)
    assert list_terms_of([alone]) == (ListTerm(0, None, 2.0),)


def test_first_step_can_be_tried(tmp_path):
    model_of(tmp_path, FINE, COARSE, samples=CLOSE).try_step()


@pytest.mark.parametrize(
    ("coarse", "samples", "problem"),
    [
        ({"list_column": None}, CLOSE, "label coarse has no list_column and listwise. hint: softmax needs one, and so"),
        ({"listwise": 0}, CLOSE, "labels.1.listwise: "),
        ({"listwise": None}, CLOSE, "label coarse has list_column item and loss logistic"),
        (
            {"listwise": None, "list_column": None, "listwise_target": "value"},
            CLOSE,
            "listwise_target without listwise",
        ),
        ({"teacher": None, "listwise_target": "teacher"}, CLOSE, "coarse has listwise_target teacher without teacher"),
        ({"loss": "softmax", "teacher": None}, CLOSE, 'listwise and loss softmax. hint: only loss = "logistic"'),
        ({}, {"policy": "wait"}, "label coarse has list_column item, and the policy of its feedback is wait"),
        ({}, CLOSE | {"negative_rate": 0.5}, "negative_rate is 0.5, but label coarse needs whole lists"),
    ],
)
def test_a_term_that_cannot_be_honoured_is_refused(coarse, samples, problem):
    document = document_of(FINE, samples=samples) | {"labels": [FINE, COARSE | coarse]}
    with pytest.raises(ConfigError) as caught:
        parse_config(document)
    assert problem in str(caught.value)
