"""The dense network: loss and gradients against NumPy, repeatable bytes, weights as bytes, models that do not fit."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.config import Config, parse_config
from pipeline.errors import DamagedError, InputError, ModelError
from pipeline.model.dense import DenseModel
from pipeline.model.loss.targets import Targets, targets_of
from pipeline.model.network.layout import Layout
from pipeline.model.network.weights import pack, unpack
from pipeline.model.training.step import INITIAL_ACCUMULATOR

RATE = 0.5

GOLDEN_PACKED = (
    b"SPRINGTDdens".hex()
    + "03000000"
    + "0000803f00000040"
    + "0300000000000000"
    + "1000000000000000" + "c1714b091ed963edb856b0ecc7c59035" + "0600" + b"arrays".hex()
    + b'{"arrays":[["a","<f4",[1,2]],["b","<i8",[]]]}'.hex()
    + "20000000" + "2d000000"
    + "1b778e7a1abc7b3395240143de7e7277"
)  # fmt: skip

LINEAR = """
import keras
def build(inputs):
    x = keras.layers.Concatenate()([inputs["item"], inputs["user"], inputs["price"]])
    return keras.Model(inputs, keras.layers.Dense(LABELS)(x))
"""

DEEP = """
import keras
def build(inputs):
    x = keras.layers.Concatenate()(list(inputs.values()))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8, "relu")(x))
    x = keras.layers.Dropout(0.3)(x)
    return keras.Model(inputs, keras.layers.Dense(1)(x))
"""


def config_of(labels: int = 1, batch_size: int = 4) -> Config:
    names = ["label", "bought"][:labels]
    clicks = {"id": "string"} | {name: "float" for name in names[1:]}
    return parse_config(
        {
            "events": {
                "key": ["id"],
                "impressions": {"columns": {"id": "string", "user": "int", "item": "string", "price": "float"}},
                "clicks": {"columns": clicks},
            },
            "samples": {"labels": names},
            "fields": [
                {"name": "user", "columns": ["user"], "dim": 3},
                {"name": "item", "columns": ["item"], "dim": 2},
            ],
            "dense": [{"name": "price", "column": "price"}],
            "model": {"batch_size": batch_size, "learning_rate": RATE},
        }
    )


def model_of(root: Path, source: str, labels: int = 1, batch_size: int = 4) -> DenseModel:
    (root / "model.py").write_text(source.replace("LABELS", str(labels)))
    return DenseModel(config_of(labels, batch_size), root)


def samples_of(*rows: dict) -> pa.RecordBatch:
    """A batch of (kind, label, weight, rate, written) dicts with defaults."""
    full = [{"weight": 1.0, "rate": 1.0, "negative_written": False, "bought": 0.0} | row for row in rows]
    return pa.RecordBatch.from_pylist(full)


POSITIVE = {"kind": "positive", "label": 1.0}
NEGATIVE = {"kind": "negative", "label": 0.0}
COMPENSATION = {"kind": "compensation", "label": 1.0}


def targets(*rows: dict, labels: tuple[str, ...] = ("label",)) -> Targets:
    return targets_of(samples_of(*rows), labels)


def inputs_of(rows: int, columns: int = 6, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def softplus(x):
    return np.logaddexp(0, x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Targets.


def test_positive_and_negative_are_plain_cross_entropy():
    found = targets(POSITIVE | {"weight": 2.0}, NEGATIVE | {"weight": 3.0})
    assert found.positive.tolist() == [[2], [0]]
    assert found.negative.tolist() == [[0], [3]]


def test_compensation_reverses_only_a_negative_that_was_written():
    found = targets(COMPENSATION | {"weight": 2.0, "negative_written": True}, COMPENSATION)
    assert found.positive.tolist() == [[2], [1]]
    assert found.negative.tolist() == [[-2], [0]]


def test_sampled_negative_is_scored_for_all_it_represents_and_trained_on_once():
    quarter = {"rate": 0.25}
    written = COMPENSATION | quarter | {"negative_written": True}
    found = targets(NEGATIVE | quarter, POSITIVE | quarter, written)
    assert found.negative.tolist() == [[1], [0], [-1]]
    assert found.scored_negative.tolist() == [[4], [0], [-4]]
    assert found.scored_positive.tolist() == [[0], [1], [1]]
    assert np.allclose(found.log_rate, np.log(0.25))


def test_second_label_between_zero_and_one_has_both_sides():
    rows = [POSITIVE | {"bought": 0.25}, COMPENSATION | {"bought": 0.25, "negative_written": True}]
    found = targets_of(samples_of(*rows), ("label", "bought"))
    assert found.positive.tolist() == [[1, 0.25], [1, 0.25]]
    assert found.negative.tolist() == [[0, 0.75], [-1, -0.25]]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"label": 1.5}, r"sample 1 of a batch has label 1.5, wanted 0 to 1"),
        ({"label": float("nan")}, "label nan"),
        ({"weight": -1.0}, "weight -1.0"),
        ({"rate": 0.0}, "rate 0.0"),
        ({"rate": 1.5}, "rate 1.5"),
    ],
)
def test_sample_out_of_range_is_refused(wrong, problem):
    with pytest.raises(InputError, match=problem):
        targets(POSITIVE, POSITIVE | wrong)


def test_kind_may_be_dictionary_encoded():
    batch = samples_of(COMPENSATION | {"negative_written": True}, NEGATIVE)
    place = batch.schema.get_field_index("kind")
    packed = batch.set_column(place, "kind", batch.column(place).dictionary_encode())
    assert targets_of(packed, ("label",)).negative.tolist() == targets_of(batch, ("label",)).negative.tolist()


# Layout.


def test_layout_puts_fields_in_configured_order_before_dense():
    layout = Layout.of(config_of())
    assert layout.starts == {"user": 0, "item": 3, "price": 5}
    assert (layout.columns, layout.dense_start) == (6, 5)


# The step.


def test_step_moves_weights_as_adagrad_written_in_numpy(tmp_path):
    model = model_of(tmp_path, LINEAR)
    before = unpack(model.weights_bytes())
    kernel, bias = before["variable/0/kernel"].astype(np.float64), before["variable/1/bias"].astype(np.float64)
    x = inputs_of(4)
    rows = targets(
        POSITIVE | {"weight": 2.0, "rate": 0.5},
        NEGATIVE | {"rate": 0.5},
        COMPENSATION | {"rate": 0.5, "negative_written": True},
        NEGATIVE | {"weight": 0.0, "rate": 0.5},
    )
    result = model.step(x, rows)

    order = [3, 4, 0, 1, 2, 5]  # the user's model puts item before user
    logits = x[:, order] @ kernel + bias
    z = logits - np.log(0.5)
    losses = rows.positive * softplus(-z) + rows.negative * softplus(z)
    by_logit = rows.negative * sigmoid(z) - rows.positive * sigmoid(-z)
    assert np.allclose(result.logits, logits, atol=1e-5)
    assert result.loss == pytest.approx(losses.sum() / 4.0, abs=1e-5)  # weights 2 + 1 + 1 + 0
    expected = np.zeros_like(x)
    expected[:, order] = by_logit @ kernel.T
    assert np.allclose(result.gradient, expected, atol=1e-5)

    after = unpack(model.weights_bytes())
    step = x[:, order].T @ by_logit / 4
    squares = INITIAL_ACCUMULATOR + step**2
    assert np.allclose(after["accumulator/0"], squares, atol=1e-6)
    assert np.allclose(after["variable/0/kernel"], kernel - RATE * step / np.sqrt(squares), atol=1e-5)


def test_fake_negative_and_its_compensation_leave_the_gradient_of_a_positive(tmp_path):
    model = model_of(tmp_path, LINEAR)
    start = model.weights_bytes()
    x = np.repeat(inputs_of(1), 2, axis=0)
    pair = model.step(x, targets(NEGATIVE, COMPENSATION | {"negative_written": True})).gradient.sum(axis=0)
    model.load_weights(start)
    plain = model.step(x[:1], targets(POSITIVE)).gradient[0]
    assert np.allclose(pair, plain, atol=1e-6)


def test_short_batch_learns_as_a_full_one_whose_other_samples_weigh_nothing(tmp_path):
    model = model_of(tmp_path, LINEAR)
    start = model.weights_bytes()
    short = model.step(inputs_of(4)[:3], targets(POSITIVE, NEGATIVE, NEGATIVE))
    after_short = unpack(model.weights_bytes())
    model.load_weights(start)
    nothing = NEGATIVE | {"weight": 0.0}
    full = model.step(inputs_of(4), targets(POSITIVE, NEGATIVE, NEGATIVE, nothing))
    assert short.gradient.shape == (3, 6)
    assert np.allclose(short.gradient, full.gradient[:3], atol=1e-6)
    assert full.gradient[3].tolist() == [0] * 6
    assert short.loss == pytest.approx(full.loss, abs=1e-6)
    for name, array in unpack(model.weights_bytes()).items():
        assert np.allclose(after_short[name], array, atol=1e-6)


def test_input_rows_after_the_last_sample_are_ignored(tmp_path):
    model = model_of(tmp_path, LINEAR)
    start = model.weights_bytes()
    x = np.zeros((4, 6), np.float32)
    x[:2] = inputs_of(2)
    full = model.step(x, targets(POSITIVE, NEGATIVE))
    after = model.weights_bytes()
    model.load_weights(start)
    cut = model.step(x[:2], targets(POSITIVE, NEGATIVE))
    assert full.gradient.tobytes() == cut.gradient.tobytes()
    assert model.weights_bytes() == after


def test_several_labels_have_a_logit_each(tmp_path):
    model = model_of(tmp_path, LINEAR, labels=2)
    rows = targets_of(samples_of(POSITIVE | {"bought": 1.0}, NEGATIVE), ("label", "bought"))
    assert model.step(inputs_of(2), rows).logits.shape == (2, 2)
    assert model.predict(inputs_of(5)).shape == (5, 2)


def test_logits_are_those_of_serving_for_any_rate(tmp_path):
    model = model_of(tmp_path, LINEAR)
    served = model.predict(inputs_of(2))
    logits = model.step(inputs_of(2), targets(POSITIVE | {"rate": 0.1}, NEGATIVE | {"rate": 0.1})).logits
    assert np.allclose(sigmoid(logits), served, atol=1e-6)


def test_learning_lowers_the_loss(tmp_path):
    model = model_of(tmp_path, DEEP, batch_size=64)
    x = inputs_of(64)
    rows = targets(*[POSITIVE if row[0] > 0 else NEGATIVE for row in x])
    losses = [model.step(x, rows).loss for _ in range(40)]
    assert losses[-1] < 0.6 * losses[0]


def test_loss_that_is_not_a_number_is_returned(tmp_path):
    model = model_of(tmp_path, LINEAR)
    x = inputs_of(1)
    x[0, 0] = np.nan
    assert np.isnan(model.step(x, targets(POSITIVE)).loss)


def test_inputs_of_the_wrong_form_are_refused_with_both_forms(tmp_path):
    model = model_of(tmp_path, LINEAR)
    with pytest.raises(InputError, match=r"got inputs \[1, 5\] float32, wanted \[n, 6\] float32"):
        model.predict(inputs_of(1, columns=5))
    with pytest.raises(InputError, match=r"got inputs \[1, 6\] float64"):
        model.predict(inputs_of(1).astype(np.float64))
    with pytest.raises(InputError, match="got 5 input rows for 1 samples, wanted 1 to 4"):
        model.step(inputs_of(5), targets(POSITIVE))
    with pytest.raises(InputError, match="got 1 input rows for 2 samples, wanted 2 to 4"):
        model.step(inputs_of(1), targets(POSITIVE, NEGATIVE))


# The same bytes.


def trained(root: Path) -> DenseModel:
    model = model_of(root, DEEP)
    for seed in range(5):
        model.step(inputs_of(4, seed=seed), targets(POSITIVE, NEGATIVE, NEGATIVE, POSITIVE))
    return model


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> DenseModel:
    """A model that has learned; tests give it back as they got it."""
    return trained(tmp_path_factory.mktemp("learned"))


def test_two_models_in_one_process_learn_the_same_bytes(tmp_path, learned):
    again = trained(tmp_path)
    assert again.weights_bytes() == learned.weights_bytes()
    assert again.digest() == learned.digest()


DISTURBED = DEEP.replace("    x = keras.layers.Batch", "    drawn_elsewhere()\n    x = keras.layers.Batch")
DISTURBED += """
import random, threading
def drawn_elsewhere():
    thread = threading.Thread(target=random.random)
    thread.start()
    thread.join()
"""


def test_random_numbers_of_other_threads_change_nothing(tmp_path):
    calm, disturbed = (tmp_path / name for name in ("calm", "disturbed"))
    calm.mkdir()
    disturbed.mkdir()
    assert model_of(disturbed, DISTURBED).weights_bytes() == model_of(calm, DEEP).weights_bytes()


def test_another_process_learns_the_same_bytes_and_keeps_stderr_clean(tmp_path, learned):
    program = "import sys, hashlib, pathlib; sys.path.insert(0, sys.argv[1]); import test_model\n"
    program += "model = test_model.trained(pathlib.Path(sys.argv[2]))\n"
    program += "print(hashlib.sha256(model.weights_bytes()).hexdigest(), model.digest())"
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path)]
    compiling_itself = {name: value for name, value in os.environ.items() if name != "TF_XLA_FLAGS"}
    there = subprocess.run(command, capture_output=True, text=True, check=True, env=compiling_itself)
    assert there.stderr == ""
    assert there.stdout.split() == [hashlib.sha256(learned.weights_bytes()).hexdigest(), learned.digest()]


def test_restored_weights_continue_like_the_original(tmp_path, learned):
    before = learned.weights_bytes()
    restored = model_of(tmp_path, DEEP)
    restored.load_weights(before)
    rows = targets(POSITIVE, NEGATIVE)
    one, other = learned.step(inputs_of(2), rows), restored.step(inputs_of(2), rows)
    after = learned.weights_bytes()
    learned.load_weights(before)
    assert one.loss == other.loss  # dropout included
    assert one.gradient.tobytes() == other.gradient.tobytes()
    assert restored.weights_bytes() == after != before


@pytest.mark.parametrize("form", ["serving_bytes", "weights_bytes"])
def test_serving_predicts_what_the_trainer_predicts(tmp_path, learned, form):
    served = model_of(tmp_path, DEEP)
    served.load_serving(getattr(learned, form)())
    assert served.predict(inputs_of(9)).tobytes() == learned.predict(inputs_of(9)).tobytes()
    assert served.serving_bytes() == learned.serving_bytes()


def test_serving_weights_have_no_accumulators(learned):
    assert {name.partition("/")[0] for name in unpack(learned.serving_bytes())} == {"variable"}


def test_model_built_from_a_list_of_inputs_gets_each_by_its_name(tmp_path):
    inputs = inputs_of(3)
    by_dict = model_of(tmp_path, LINEAR).predict(inputs)
    by_list = model_of(tmp_path, LINEAR.replace("Model(inputs,", "Model(list(inputs.values())[::-1],")).predict(inputs)
    assert by_list.tobytes() == by_dict.tobytes()


def test_input_that_the_model_does_not_use_has_no_gradient(tmp_path):
    source = "import keras\ndef build(inputs):\n"
    source += "    return keras.Model(inputs['user'], keras.layers.Dense(1)(inputs['user']))\n"
    model = model_of(tmp_path, source)
    gradient = model.step(inputs_of(1), targets(POSITIVE)).gradient
    assert gradient[0, :3].all()
    assert not gradient[0, 3:].any()


def test_model_of_a_user_defined_class_works(tmp_path):
    source = """
import keras
class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.last = keras.layers.Dense(1)
    def call(self, inputs):
        return self.last(keras.ops.concatenate([inputs["user"], inputs["item"], inputs["price"]], axis=1))
def build(inputs):
    return Own()
"""
    one, other = model_of(tmp_path, source), model_of(tmp_path, source)
    one.step(inputs_of(2), targets(POSITIVE, NEGATIVE))
    other.load_weights(one.weights_bytes())
    assert one.predict(inputs_of(3)).tobytes() == other.predict(inputs_of(3)).tobytes()
    assert one.digest() == other.digest()


def test_operation_without_compiled_form_is_run_without_compiling(tmp_path):
    source = """
import keras, tensorflow as tf
class Texts(keras.layers.Layer):
    def call(self, x):
        return x * tf.strings.to_number(tf.strings.as_string(tf.ones_like(x)))
    def compute_output_shape(self, shape):
        return shape
def build(inputs):
    return keras.Model(inputs, keras.layers.Dense(1)(Texts()(inputs["user"])))
"""
    model = model_of(tmp_path, source)
    assert np.isfinite(model.step(inputs_of(1), targets(POSITIVE)).loss)
    assert np.isfinite(model.step(inputs_of(1), targets(POSITIVE)).loss)


# Models and weights that do not fit.


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("keras.Model(inputs, keras.layers.Dense(2)(inputs['user']))", r"returns \[None, 2\], wanted \[None, 1\]"),
        ("keras.Model(inputs, [inputs['user'], inputs['item']])", r"returns 2 outputs, wanted \[None, 1\]"),
        ("keras.layers.Dense(1)(inputs['user'])", "returned KerasTensor, wanted keras.Model"),
        ("inputs['usr']", "failed: KeyError: 'usr'"),
        ("keras.Model(inputs, keras.layers.Dense(1, 'sigmoid')(inputs['user']))", "ends in a sigmoid, wanted logits"),
        ("keras.Sequential([keras.layers.Dense(1)])", "does not accept the inputs user, item, price"),
    ],
)
def test_model_that_does_not_fit_is_refused(tmp_path, body, problem):
    with pytest.raises(ModelError, match=problem):
        model_of(tmp_path, f"import keras\ndef build(inputs):\n    return {body}\n")


def test_weights_of_another_model_are_refused_with_both_shapes(tmp_path):
    other = model_of(tmp_path, LINEAR, labels=2).weights_bytes()
    with pytest.raises(ModelError, match=r"\(6, 2\)\) as variable/0/kernel, the model has .*\(6, 1\)"):
        model_of(tmp_path, LINEAR).load_weights(other)


def test_serving_weights_are_not_enough_to_train_from(tmp_path):
    model = model_of(tmp_path, LINEAR)
    with pytest.raises(ModelError, match="weights have nothing as accumulator/0"):
        model.load_weights(model.serving_bytes())


def test_after_a_migration_weights_of_equal_name_and_shape_are_retained(tmp_path):
    source = "import keras\ndef build(inputs):\n    x = keras.layers.Dense(SIZE)(inputs['user'])\n"
    source += "    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dense(5)(x)))\n"
    old = model_of(tmp_path, source.replace("SIZE", "4"))
    old.step(inputs_of(2), targets(POSITIVE, NEGATIVE))
    new = model_of(tmp_path, source.replace("SIZE", "3"))
    built, theirs = unpack(new.weights_bytes()), unpack(old.weights_bytes())
    anew = new.load_matching(old.weights_bytes())
    changed = [f"{kind}/{i}" for kind in ("accumulator", "variable") for i in (0, 1, 2)]
    assert [name.rsplit("/", 1)[0] if name.startswith("v") else name for name in anew] == changed
    for name, array in unpack(new.weights_bytes()).items():
        assert array.tolist() == (built if name in anew else theirs)[name].tolist()


def test_digest_changes_with_architecture_and_source(tmp_path):
    first = model_of(tmp_path, LINEAR).digest()
    assert model_of(tmp_path, LINEAR).digest() == first
    assert model_of(tmp_path, LINEAR + "# another line\n").digest() != first
    assert model_of(tmp_path, LINEAR, labels=2).digest() != first


def test_digest_of_operations_and_models_inside_a_model_does_not_depend_on_what_was_built_before(tmp_path):
    source = """
import keras
def build(inputs):
    x = inputs["item"][:, :1] + inputs["price"] * 2.0
    deep = keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(LABELS)])
    return keras.Model(inputs, deep(keras.layers.Concatenate()([x, inputs["user"]])))
"""
    first = model_of(tmp_path, source).digest()
    assert model_of(tmp_path, source).digest() == first
    assert model_of(tmp_path, source.replace("Dense(4)", "Dense(5)")).digest() != first


def test_packed_weights_have_golden_bytes():
    packed = pack({"a": np.array([[1, 2]], np.float32), "b": np.array(3, np.int64)})
    assert packed.hex() == GOLDEN_PACKED
    assert {name: array.tolist() for name, array in unpack(packed).items()} == {"a": [[1, 2]], "b": 3}


def test_any_damage_to_packed_weights_is_detected():
    packed = pack({"a": np.arange(3, dtype=np.float32)})
    for place in range(len(packed)):
        broken = bytearray(packed)
        broken[place] ^= 1
        with pytest.raises(DamagedError):
            unpack(bytes(broken))
    for length in (0, 10, len(packed) - 1):
        with pytest.raises(DamagedError):
            unpack(packed[:length])
