"""Labels whose positives come late: weights make the expected gradient that of the true label."""

import copy

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.config import parse_config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import ConfigError
from pipeline.model.loss.late_labels import importance_weights
from pipeline.model.loss.late_odds import logits_of_odds
from pipeline.model.loss.losses import served
from pipeline.model.loss.targets import targets_of
from tests.support.shop.shop import WRITTEN, make_samples


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("late", [0.1, 0.5, 1.0])
def test_the_expected_gradient_is_zero_at_the_true_probability_and_nowhere_else(late):
    true = np.array([[0.01], [0.2], [0.7], [0.99]])
    for wrong in (-0.5, 0.0, 0.5):
        z = np.log(true / (1 - true)) + wrong
        positive, negative = (np.asarray(f) for f in importance_weights(z.astype(np.float32), [late]))
        # An impression yields a positive with probability p, and a negative unless it is positive within its window.
        gradient = true * positive * (sigmoid(z) - 1) + (1 - true + late * true) * negative * sigmoid(z)
        if wrong == 0.0:
            assert np.allclose(gradient, 0, atol=1e-6)
        else:
            assert (np.sign(gradient) == np.sign(wrong)).all()


def test_weights_of_fake_negatives_are_those_of_fnw():
    z = np.array([[-3.0], [0.0], [2.0]], np.float32)
    positive, negative = (np.asarray(f) for f in importance_weights(z, [1.0]))
    p = sigmoid(z)
    assert np.allclose(positive, 1 + p)
    assert np.allclose(negative, (1 + p) * (1 - p), rtol=1e-5)


def test_a_label_without_correction_keeps_its_weights_to_the_bit():
    z = np.array([[-90.0, 1.0], [0.3, -2.0], [90.0, 1e30]], np.float32)
    for factor in importance_weights(z, [0.0, 0.5]):
        assert (np.asarray(factor)[:, 0] == 1).all()
        assert np.isfinite(np.asarray(factor)).all()


def test_a_calibrated_label_serves_and_scores_the_odds_of_its_output():
    labels = [LabelConfig(name="a", correction="calibration"), LabelConfig(name="b")]
    true = np.array([[0.02, 0.02], [0.4, 0.4], [0.9, 0.9]])
    learned = true / (1 + true)
    outputs = np.log(learned / (1 - learned))
    found = np.asarray(served(labels, outputs.astype(np.float32)))
    assert np.allclose(found, np.stack([true[:, 0], learned[:, 1]], axis=1), rtol=1e-5)
    assert np.allclose(sigmoid(logits_of_odds(outputs[:, 0])), true[:, 0])
    assert np.asarray(served(labels, np.array([[3.0, 3.0]], np.float32)))[0, 0] == 1
    assert np.isfinite(logits_of_odds(np.array([3.0, 0.0, -1e-300]))).all()


def test_a_compensation_of_a_corrected_label_takes_no_negative_back_but_is_scored_as_one():
    columns = {name: make_samples(1, 4).column(name) for name in ("weight", "rate")}
    columns |= {"label": pa.array([1.0] * 4, pa.float32()), "kind": pa.array(["compensation"] * 4)}
    samples = pa.record_batch(columns | {"negative_written": pa.array([True] * 4)})
    plain, corrected = (
        targets_of(samples, [LabelConfig(name="label", correction=c)]) for c in ("reversal", "importance")
    )
    assert (plain.negative.tolist(), corrected.negative.tolist()) == ([[-1.0]] * 4, [[0.0]] * 4)
    assert (plain.scored_negative == corrected.scored_negative).all()
    assert (plain.positive == corrected.positive).all()


@pytest.mark.parametrize(
    ("policy", "label", "problem"),
    [
        ("wait", {"correction": "importance"}, "label label has no late_share, and its feedback waits. hint"),
        (
            "fake_negative",
            {"correction": "importance", "late_share": 0.5},
            "late_share 0.5, but its feedback is fake_negative",
        ),
        ("wait", {"late_share": 0.5}, "label label has late_share without correction"),
        ("wait", {"correction": "calibration"}, "correction calibration, and its feedback waits. hint: policy = "),
        ("fake_negative", {"correction": "calibration", "loss": "poisson"}, "correction calibration and loss poisson"),
        ("wait", {"correction": "importance", "late_share": 0}, "labels.0.late_share: "),
        ("wait", {"correction": "importance", "late_share": 0.5, "loss": "squared"}, "importance and loss squared"),
    ],
)
def test_correction_that_cannot_be_honoured_is_reported(policy, label, problem):
    document = copy.deepcopy(WRITTEN)
    document["samples"] = {"policy": policy}
    document["labels"] = [{"name": "label", **label}]
    with pytest.raises(ConfigError) as caught:
        parse_config(document)
    assert problem in str(caught.value)
