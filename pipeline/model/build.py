"""Builds the user's Keras model from named inputs and checks that it gives one logit per label.

What a model is, for `--migrate`: its architecture, with layer names that Keras numbers per process put aside, and its
source.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from pipeline.features.user_code import UserFunction, load_function
from pipeline.ground.config import Config
from pipeline.ground.errors import ModelError
from pipeline.model.layout import Layout


def prepare_runtime(threads: int) -> None:
    """Make TensorFlow deterministic, with so many threads. The first model of a process decides the number."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        assert tf.config.threading.get_intra_op_parallelism_threads() is not None  # already running: stands as it is
    tf.config.experimental.enable_op_determinism()


def build_model(config: Config, root: Path) -> tuple[keras.Model, UserFunction]:
    """The user's model with repeatable initial weights, and the function that built it. Raises ModelError."""
    function = load_function(root, config.model.build)
    layout = Layout.of(config)
    keras.utils.set_random_seed(config.model.seed)
    inputs = {n: keras.Input((w,), name=n) for n, w in zip(layout.names, layout.widths, strict=True)}
    try:
        model = function.call(dict(inputs))
    except Exception as failure:
        raise ModelError(f"{function.reference} failed: {type(failure).__name__}: {failure}") from failure
    if not isinstance(model, keras.Model):
        hint = "hint: return keras.Model(inputs, logits)"
        raise ModelError(f"{function.reference} returned {type(model).__name__}, wanted keras.Model. {hint}")
    _check_output(function.reference, model, inputs, config.samples.labels)
    return model, function


def model_digest(model: keras.Model, function: UserFunction) -> str:
    """Hex SHA-256 of architecture, weight shapes and source: the same in every process that builds the same model."""
    shapes = [[v.name, str(v.dtype), list(v.shape)] for v in model.variables]
    identity = [_architecture(model), shapes, function.reference, function.source_digest]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _check_output(who: str, model: keras.Model, inputs: dict[str, Any], labels: tuple[str, ...]) -> None:
    try:
        output = model(inputs)
    except Exception as failure:
        raise ModelError(
            f"the model of {who} does not take its inputs: {type(failure).__name__}: {failure}"
        ) from failure
    got = list(output.shape) if hasattr(output, "shape") else type(output).__name__
    wanted = [None, len(labels)]
    if got != wanted:
        hint = f"hint: one logit for each of the labels {', '.join(labels)}"
        raise ModelError(f"the model of {who} gives {got}, wanted {wanted}. {hint}")
    last = model.layers[-1] if model.layers else None
    if getattr(last, "activation", None) is keras.activations.sigmoid:
        hint = "hint: leave the last activation out"
        raise ModelError(f"the model of {who} ends in a sigmoid, wanted logits. {hint}")


def _architecture(model: keras.Model) -> Any:
    try:
        document = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError):
        return "not serialisable"  # a model of the user's own class: its source and shapes identify it
    names = {layer.name: f"layer {i}" for i, layer in enumerate(model.layers)} | {model.name: "model"}
    return _renamed(document, names)


def _renamed(document: Any, names: dict[str, str]) -> Any:
    if isinstance(document, dict):
        return {key: _renamed(value, names) for key, value in document.items()}
    if isinstance(document, list):
        return [_renamed(value, names) for value in document]
    return names.get(document, document) if isinstance(document, str) else document
