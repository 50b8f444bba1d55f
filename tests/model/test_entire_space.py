"""Labels that are given another one: products of probabilities, exact for logits of any size."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.configuration.config import Config, parse_config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import ConfigError
from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel
from pipeline.model.identity import identity_of, serving_digest
from pipeline.model.network.entire_space import joint_logits, logit_of_product
from tests.model.loss.test_losses import FOUR, config_of, document_of, model_of, targets
from tests.model.test_model import LINEAR, inputs_of
from tests.support.world.served_model import INSTANCE, PREDICT, request, served_model

CLICK = {"name": "ctr"}
BOUGHT = {"name": "ctcvr", "given": "ctr"}
CHAIN = [LabelConfig(name="a"), LabelConfig(name="b", given="a"), LabelConfig(name="c", given="b")]
HEADS = """
import keras
def build(inputs):
    x = keras.layers.Concatenate()(list(inputs.values()))
    heads = {name: keras.layers.Dense(1)(x) for name in NAMES}
    return keras.Model(inputs, heads)
"""


def sigmoid(z):
    return 1 / (1 + np.exp(-np.float64(z)))


def test_label_that_is_given_another_has_the_product_of_both_probabilities():
    z = np.random.default_rng(1).normal(0, 3, (50, 3)).astype(np.float32)
    found = sigmoid(joint_logits(CHAIN, tf.constant(z)))
    np.testing.assert_allclose(found, np.cumprod(sigmoid(z), axis=1), rtol=2e-6)


def test_order_of_the_outputs_does_not_matter():
    z = np.random.default_rng(2).normal(0, 3, (9, 3)).astype(np.float32)
    found = np.asarray(joint_logits(CHAIN[::-1], tf.constant(z[:, ::-1])))
    np.testing.assert_array_equal(found[:, ::-1], joint_logits(CHAIN, tf.constant(z)))


def test_gradient_of_the_loss_is_that_of_the_product_written_out():
    random = np.random.default_rng(3)
    z, y = random.normal(0, 3, (40, 3)), (random.random((40, 3)) < 0.5).astype(np.float64)
    single, double = tf.Variable(z, dtype=tf.float32), tf.Variable(z)
    with tf.GradientTape() as tape:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(y.astype(np.float32), joint_logits(CHAIN, single))
    found = tape.gradient(losses, single)
    with tf.GradientTape() as tape:
        p = tf.math.cumprod(tf.sigmoid(double), axis=1)
        losses = -y * tf.math.log(p) - (1 - y) * tf.math.log(1 - p)
    np.testing.assert_allclose(found, tape.gradient(losses, double), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("a", [-80.0, 0.0, 80.0])
@pytest.mark.parametrize("b", [-80.0, 0.0, 80.0])
def test_extreme_logits_have_finite_products_and_gradients(a, b):
    inputs = tf.Variable([[a, b]], dtype=tf.float32)
    with tf.GradientTape() as tape:
        z = logit_of_product(inputs[:, 0], inputs[:, 1])
    log_p = -np.logaddexp(0, -np.float64(a)) - np.logaddexp(0, -np.float64(b))
    # log(1 − exp(−x)) of Mächler 2012, "Accurately computing log(1 − exp(−|a|))".
    log_rest = np.log(-np.expm1(log_p)) if log_p > -np.log(2) else np.log1p(-np.exp(log_p))
    assert float(z[0]) == pytest.approx(log_p - log_rest, rel=1e-6)
    gradient = np.asarray(tape.gradient(z, inputs))[0]
    assert np.isfinite(gradient).all()
    assert (gradient >= 0).all()
    assert gradient.sum() >= 0.99


def test_step_learns_the_loss_of_the_product_and_predicts_what_it_scored(tmp_path):
    labels = [CLICK, BOUGHT | {"conditional": "cvr"}]
    model, x = model_of(tmp_path, *labels), inputs_of(4)
    before = model.predict(x)
    result = model.step(x, targets(labels, FOUR, ctr=[1, 0, 1, 0], ctcvr=[1, 0, 0, 0]))
    y = np.array([[1, 1], [0, 0], [1, 0], [0, 0]])
    p = before[:, :2].astype(np.float64)
    assert result.loss == pytest.approx(-(y * np.log(p) + (1 - y) * np.log(1 - p)).sum() / 4, rel=1e-5)
    np.testing.assert_allclose(sigmoid(result.logits), p, rtol=1e-5)
    np.testing.assert_allclose(before[:, 1], before[:, 0] * before[:, 2], rtol=1e-5)


def with_heads(root: Path, *labels: dict) -> DenseModel:
    return model_of(root, *labels, source=HEADS.replace("NAMES", str([label["name"] for label in labels])))


def test_added_conversion_that_is_not_observed_leaves_the_step_of_the_click(tmp_path):
    one, both = with_heads(tmp_path, CLICK), with_heads(tmp_path, CLICK, BOUGHT)
    both.load_matching(one.weights_bytes())
    start, clicks, nothing = both.predict(inputs_of(4))[:, :1], [1, 0, 1, 0], [None] * 4
    alone = one.step(inputs_of(4), targets([CLICK], FOUR, ctr=clicks))
    added = both.step(inputs_of(4), targets([CLICK, BOUGHT], FOUR, ctr=clicks, ctcvr=nothing))
    np.testing.assert_allclose(added.gradient, alone.gradient, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(both.predict(inputs_of(4))[:, :1], one.predict(inputs_of(4)), rtol=1e-5)
    assert (both.predict(inputs_of(4))[:, :1] != start).all()


def test_replica_serves_click_conversion_and_both_by_name(tmp_path):
    labels = [{"name": "ctr"}, {"name": "ctcvr", "event": "bought", "given": "ctr", "conditional": "cvr"}]
    columns = {"id": "int", "user": "int", "item": "int", "price": "float"}
    events = {
        "key": ["id"],
        "impressions": {"columns": columns},
        "clicks": {"columns": {"id": "int"}},
        "bought": {"columns": {"id": "int"}},
    }
    source = HEADS.replace("NAMES", "('ctcvr', 'ctr')")
    with served_model(tmp_path, source, labels=labels, events=events) as model:
        status, body = request(model.server, "POST", PREDICT, {"instances": [INSTANCE, {"user": 8, "item": 9}]})
        _, metadata = request(model.server, "GET", "/v1/models/model/metadata")
    assert status == 200, body
    for prediction in json.loads(body)["predictions"]:
        assert list(prediction) == ["ctr", "ctcvr", "cvr"]
        assert prediction["ctcvr"] == pytest.approx(prediction["ctr"] * prediction["cvr"], rel=1e-5)
    signature = json.loads(metadata)["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert list(signature["outputs"]) == ["ctr", "ctcvr", "cvr"]


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([{"name": "ctr", "given": "ctr"}], "label ctr is given ctr, which is not a label before it"),
        ([{"name": "ctr", "given": "ctcvr"}, BOUGHT], "label ctr is given ctcvr, .* declare ctcvr in .* above ctr"),
        ([CLICK, BOUGHT | {"given": "click"}], "label ctcvr is given click, which is not a label before it"),
        ([CLICK, BOUGHT | {"loss": "squared"}], "label ctcvr has loss squared, but ctcvr is given ctr. hint: loss ="),
        ([CLICK | {"loss": "poisson"}, BOUGHT], "label ctr has loss poisson, but ctcvr is given ctr"),
        ([CLICK | {"correction": "calibration"}, BOUGHT], "label ctr has correction calibration, but ctcvr is given"),
        ([CLICK, {"name": "ctcvr", "conditional": "cvr"}], "label ctcvr has conditional cvr without given"),
        ([CLICK, BOUGHT | {"conditional": "ctr"}], "conditional ctr, which is the name of another output"),
        (
            [CLICK, *({"name": n, "given": "ctr", "conditional": "cvr"} for n in ("ctcvr", "other"))],
            "label other has conditional cvr, which is the name of another output",
        ),
    ],
)
def test_given_that_cannot_be_honoured_is_refused(labels, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_config(document_of(*labels, samples={"policy": "fake_negative"}))


def digests(config: Config, root: Path) -> tuple[dict[str, str], str]:
    (root / "model.py").write_text(LINEAR.replace("LABELS", "2"))
    model, plan = DenseModel(config, root), FeaturePlan(config, root)
    return identity_of(config, plan, model), serving_digest(config, plan, model)


def test_given_changes_the_identity_and_the_name_of_the_conditional_does_not(tmp_path):
    plain, given, named = (
        digests(config_of(CLICK, bought), tmp_path)
        for bought in ({"name": "ctcvr"}, BOUGHT, BOUGHT | {"conditional": "cvr"})
    )
    assert plain[0] != given[0]
    assert plain[1] != given[1]
    assert given == named
