"""A network that divides by the number of elements of a list is refused before it meets an empty one."""

import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import ModelError
from pipeline.model.dense import DenseModel

SOURCE = """
import keras
from keras import layers, ops

def build(inputs):
    mask = ops.cast(inputs["seen_mask"], "float32")[:, :, None]
    count, total = ops.sum(mask, axis=1), ops.sum(inputs["seen"] * mask, axis=1)
    average = AVERAGE
    liked = LIKED
    x = layers.Concatenate()([inputs["user"], average])
    outputs = {"label": layers.Dense(1)(x), "bought": layers.Dense(1)(layers.Concatenate()([inputs["user"], liked]))}
    return keras.Model(inputs, outputs)
"""
KERAS = 'layers.GlobalAveragePooling1D()(inputs["seen"], mask=inputs["seen_mask"])'
SAFE = "total / ops.maximum(count, 1)"
LIKED = 'inputs["liked"]'
DIVIDED = f"{LIKED} / ops.norm({LIKED}, axis=1, keepdims=True)"


def model_of(root, average: str = SAFE, liked: str = LIKED, batch_size: int = 4) -> DenseModel:
    (root / "model.py").write_text(SOURCE.replace("AVERAGE", average).replace("LIKED", liked))
    columns = {"id": "string", "user": "int", "history": "strings", "likes": "strings"}
    document = {
        "events": {
            "key": ["id"],
            "impressions": {"columns": columns},
            "clicks": {"columns": {"id": "string", "bought": "float"}},
        },
        "samples": {"labels": ["label", "bought"]},
        "fields": [
            {"name": "user", "columns": ["user"], "dim": 3},
            {"name": "seen", "columns": ["history"], "dim": 2, "pooling": "none", "max_length": 3},
            {"name": "liked", "columns": ["likes"], "dim": 2},
        ],
        "model": {"batch_size": batch_size},
    }
    return DenseModel(parse_config(document), root)


@pytest.mark.parametrize(
    ("average", "liked", "problem"),
    [
        (KERAS, LIKED, r"output label is nan for an instance without elements in column history \(field seen\)"),
        ("total / count", LIKED, r"output label is nan for an instance without elements in column history"),
        (SAFE, DIVIDED, r"output bought is nan for an instance without elements in column likes \(field liked\)"),
        ("ops.where(count > 0, total / count, 0.0)", LIKED, r"the gradient is not finite .* history \(field seen\)"),
        (
            f"{SAFE} + 0 / (count + ops.sum({LIKED}, axis=1, keepdims=True))",
            LIKED,
            r"output label is nan .* history, likes \(field seen, liked",
        ),
    ],
)
def test_a_network_that_is_not_finite_without_elements_is_refused_with_output_and_column(
    tmp_path, average, liked, problem
):
    with pytest.raises(ModelError, match=problem) as refused:
        model_of(tmp_path, average, liked).try_step()
    assert "hint: divide by keras.ops.maximum(number of elements, 1)" in str(refused.value)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_average_of_the_hint_is_accepted_for_every_batch_size(tmp_path, batch_size):
    model_of(tmp_path, batch_size=batch_size).try_step()


def test_with_one_sample_a_batch_an_average_is_refused_as_well(tmp_path):
    with pytest.raises(ModelError, match="output label is nan"):
        model_of(tmp_path, KERAS, batch_size=1).try_step()


def test_a_network_that_is_not_finite_for_the_numbers_of_the_trial_is_not_judged(tmp_path):
    model_of(tmp_path, f"{SAFE} + ops.log(-1 - ops.square(total))").try_step()
