"""Outputs that estimate how late positives come, and the weights of a label that follow from them (ES-DFM)."""

import copy
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from pipeline.configuration.config import parse_config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import ConfigError
from pipeline.model.dense import DenseModel
from pipeline.model.loss.late_labels import importance_weights, late_estimates_of
from pipeline.model.loss.targets import targets_of
from pipeline.model.network.weights import unpack
from tests.support.shop.shop import WRITTEN, make_project, make_samples

LABELS = [
    {"name": "bought", "correction": "importance"},
    {"name": "later", "target": "bought", "estimates": "delayed_positive"},
    {"name": "fake", "target": "bought", "estimates": "fake_negative"},
]
MODEL = """
import keras
from keras import layers
def build(inputs):
    x = layers.Concatenate()(list(inputs.values()))
    def output(seed):
        return layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(seed=seed))(x)
    return keras.Model(inputs, {"bought": output(1), "later": output(2), "fake": output(3)})
"""


def configuration(labels=LABELS, policy="wait", rate=1.0):
    document = copy.deepcopy(WRITTEN)
    document["samples"] = {"policy": policy, "negative_rate": rate}
    document["labels"] = labels
    return document


def labels_of():
    return parse_config(configuration()).outputs


def samples_of(kinds, written, rate=1.0, weight=None):
    n = len(kinds)
    columns = {
        "bought": pa.array([float(kind != "negative") for kind in kinds], pa.float32()),
        "weight": pa.array(np.ones(n, np.float32) if weight is None else weight),
        "rate": pa.array(np.full(n, rate, np.float32)),
        "kind": pa.array(kinds),
        "negative_written": pa.array(written),
    }
    return pa.record_batch(columns)


@dataclass(frozen=True)
class Truth:
    """Of one impression: a positive inside its window, one after it, and the share of negatives that is emitted."""

    early: float
    late: float
    rate: float

    @property
    def stream(self):
        """(kind, whether its negative was written, expected number) of the samples of one impression."""
        return [
            ("positive", False, self.early),
            ("negative", True, self.rate * (1 - self.early)),
            ("compensation", True, self.rate * self.late),
            ("compensation", False, (1 - self.rate) * self.late),
        ]

    @property
    def logits(self):
        chances = np.array([self.early + self.late, self.late, self.late / (1 - self.early)])
        return np.log(chances / (1 - chances))


@pytest.mark.parametrize("truth", [Truth(0.1, 0.05, 1.0), Truth(0.2, 0.6, 1.0), Truth(0.1, 0.05, 0.25)])
@pytest.mark.parametrize("wrong", [0.0, 0.5, -0.5])
def test_expected_gradients_are_zero_at_the_truth_and_nowhere_else(truth, wrong):
    kinds, written, counts = zip(*truth.stream, strict=True)
    targets = targets_of(samples_of(list(kinds), list(written), truth.rate), labels_of())
    for output in range(3):
        z = truth.logits.copy()
        z[output] += wrong
        weights = importance_weights(tf.constant([z] * 4, tf.float32), [1.0, 0.0, 0.0], late_estimates_of(labels_of()))
        positive, negative = (
            np.asarray(factor) * given
            for factor, given in zip(weights, (targets.positive, targets.negative), strict=True)
        )
        p = 1 / (1 + np.exp(-(z - np.log(truth.rate))))
        gradient = np.array(counts) @ (positive * (p - 1) + negative * p)
        assert (
            gradient[output] == pytest.approx(0, abs=1e-6)
            if wrong == 0
            else np.sign(gradient[output]) == np.sign(wrong)
        )


def test_estimates_are_scored_as_the_events_that_come_late():
    kinds = ["positive", "negative", "compensation", "compensation"]
    targets = targets_of(samples_of(kinds, [False, True, True, False], 0.5), labels_of())
    assert targets.observed.tolist() == [[True, True, False], [True] * 3, [True] * 3, [True] * 3]
    assert targets.scored_positive[:, 1:].tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]
    assert targets.scored_negative[:, 1:].tolist() == [[1, 0], [2, 2], [-2, -2], [0, 0]]


def test_gradients_are_those_of_tensorflow_in_float64(tmp_path):
    document = configuration()
    document["model"] = {"batch_size": 64}
    config = make_project(tmp_path, document, MODEL).config
    model = DenseModel(config, tmp_path)
    random, n = np.random.default_rng(4), 64
    inputs = random.normal(size=(n, model.layout.columns)).astype(np.float32)
    kinds = random.choice(["positive", "negative", "compensation"], n).tolist()
    weight = random.uniform(0.5, 2, n).astype(np.float32)
    samples = samples_of(kinds, [kind != "positive" for kind in kinds], weight=weight)
    kernels = [array for array in unpack(model.serving_bytes()).values() if array.ndim == 2]
    found = model.step(inputs, targets_of(samples, config.outputs))

    x = tf.Variable(inputs.astype(np.float64))
    positive, compensation = (np.array(kinds) == kind for kind in ("positive", "compensation"))
    with tf.GradientTape() as tape:
        z, dp, fn = (tf.linalg.matvec(x, kernel[:, 0].astype(np.float64)) for kernel in kernels)
        one, zero = tf.nn.softplus, lambda v: tf.nn.softplus(-v)
        p_dp, p_rn = tf.stop_gradient(tf.sigmoid(dp)), tf.stop_gradient(1 - tf.sigmoid(fn))
        label = tf.where(positive | compensation, (1 + p_dp) * zero(z), (1 + p_dp) * p_rn * one(z))
        delayed = tf.where(compensation, zero(dp) - one(dp), one(dp))
        fake = tf.where(compensation, zero(fn) - one(fn), tf.where(positive, tf.zeros_like(fn), one(fn)))
        loss = tf.reduce_sum(weight.astype(np.float64) * (label + delayed + fake))
    np.testing.assert_allclose(found.gradient, tape.gradient(loss, x), rtol=1e-4, atol=1e-6)
    assert found.sample_loss == pytest.approx(float(loss) / weight.sum(), rel=1e-5)


def test_other_labels_keep_their_weights_to_the_bit():
    labels = [*labels_of(), LabelConfig(name="click")]
    z = tf.constant(np.random.default_rng(1).normal(size=(9, 4)), tf.float32)
    for factor in importance_weights(z, [1.0, 0.0, 0.0, 0.0], late_estimates_of(labels)):
        assert (np.asarray(factor)[:, 1:] == 1).all()
        assert (np.asarray(factor)[:, 0] != 1).all()


def test_samples_without_late_events_are_those_of_a_shop():
    targets = targets_of(
        make_samples(1, 50).rename_columns(
            ["bought" if name == "label" else name for name in make_samples(1, 1).schema.names]
        ),
        labels_of(),
    )
    assert not targets.positive[:, 1:].any()
    assert (targets.negative[:, 1] == 1).all()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda labels: labels[1].pop("target"), "later estimates delayed_positive without target"),
        (lambda labels: labels.pop(2), "bought has 0 labels that estimate fake_negative, wanted one"),
        (
            lambda labels: labels[2].update(estimates="delayed_positive"),
            "bought has 2 labels that estimate delayed_posit",
        ),
        (lambda labels: labels[0].update(late_share=0.2), "bought has a late_share, but others estimate it"),
        (lambda labels: labels[0].pop("correction"), 'bought has no correction = "importance", but others estimate'),
        (lambda labels: labels[1].update(correction="importance"), "delayed_positive and has correction, which has no"),
        (lambda labels: labels[1].update(teacher="bought"), "later estimates delayed_positive and has teacher"),
        (lambda labels: labels[1].update(loss="squared"), "later estimates delayed_positive and has loss"),
        (lambda labels: labels[1].update(event="clicks"), "later has target bought and event. hint"),
        (lambda labels: labels[1].update(target="gone"), "label later has target gone, wanted one of bought"),
        (lambda labels: labels[1].update(estimates="fresh"), "labels.1.estimates: "),
        (
            lambda labels: labels.append(
                {"name": "x", "target": "bought", "correction": "reversal", "teacher": "fake"}
            ),
            "label x has teacher fake, which estimates and is no event",
        ),
        (
            lambda labels: labels.append({"name": "x", "target": "bought", "given": "fake"}),
            "label x has given fake, which estimates and is no event",
        ),
    ],
)
def test_estimates_that_cannot_be_honoured_are_reported(change, problem):
    labels = copy.deepcopy(LABELS)
    change(labels)
    with pytest.raises(ConfigError) as caught:
        parse_config(configuration(labels))
    assert problem in str(caught.value)


def test_estimates_of_fake_negatives_are_reported():
    with pytest.raises(ConfigError, match="its feedback is fake_negative: all positives come late"):
        parse_config(configuration(policy="fake_negative"))


def test_a_coarse_output_of_the_same_label_has_the_same_weights():
    outputs = parse_config(configuration([*LABELS, {"name": "coarse", "target": "bought"}])).outputs
    assert [(e.label, e.delayed_positive, e.fake_negative) for e in late_estimates_of(outputs)] == [
        (0, 1, 2),
        (3, 1, 2),
    ]
