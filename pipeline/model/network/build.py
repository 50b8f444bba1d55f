"""Builds the user's Keras model from named inputs and checks that it returns one output per label (see `outputs`).

A model is identified, for `--migrate`, by its source and its architecture, without the layer names that Keras numbers
per process.
"""

import hashlib
import json
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.configuration.config import Config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.model.towers import vector_names
from pipeline.errors import ModelError
from pipeline.features.user_code import UserFunction, load_function, summary_of
from pipeline.model.network.embedding_range import refuse_clamping
from pipeline.model.network.inputs import symbolic_inputs
from pipeline.model.network.layout import Layout
from pipeline.model.network.limits import problem_of, problem_of_types
from pipeline.model.network.outputs import logits_of
from pipeline.model.network.subnetwork import Subnetwork
from pipeline.model.runtime import keras, seed_generator


def build_model(config: Config, root: Path) -> tuple[keras.Model, UserFunction]:
    """The user's model with repeatable initial weights, and the function that built it. Raises ModelError."""
    with _building, _own_settings():
        function = load_function(root, config.model.build)
        with _seeded(config.model.seed):
            network = _build(function, Layout.of(config), config.outputs)
        _check_parts(config, network, function.reference)
        return network, function


def _build(function: UserFunction, layout: Layout, labels: tuple[LabelConfig, ...]) -> keras.Model:
    inputs = symbolic_inputs(layout)
    try:
        model = function.call(dict(inputs))
    except (Exception, SystemExit) as failure:
        raise ModelError(f"{function.reference} failed: {summary_of(failure)}") from failure
    if not isinstance(model, keras.Model):
        hint = "hint: return keras.Model(inputs, logits)"
        raise ModelError(f"{function.reference} returned {type(model).__name__}, wanted keras.Model. {hint}")
    outputs = _outputs(function.reference, model, inputs)
    whole = keras.Model(inputs, logits_of(function.reference, model, outputs, labels))
    if problem := problem_of(model) or problem_of_types(whole):
        raise ModelError(f"the model of {function.reference} {problem}")
    refuse_clamping(whole)
    return whole


def _check_parts(config: Config, network: keras.Model, reference: str) -> None:
    """Raise ModelError if parts are declared and the network does not compute their outputs apart."""
    try:
        for part in config.parts:
            Subnetwork.of(network, config.output_names, part.labels, vector_names(config.outputs))
    except ModelError as failure:
        raise ModelError(f"the model of {reference}: {failure}") from None


_building = threading.Lock()
_FUNCTIONAL_CALLS = (keras.Model(i := keras.Input((1,)), i).__class__.call, keras.Sequential.call)
"""Methods that compute the graph of a model; another one is the user's and takes the place of the graph."""


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside, layers draw their seeds from a generator that no other code uses.

    Keras draws them from the global generator of module `random`, which all threads share: a Kafka client that chooses
    a broker meanwhile would change the initial weights.
    """
    keras.utils.set_random_seed(seed)
    shared = seed_generator.python_random
    seed_generator.python_random = random.Random(seed)
    try:
        yield
    finally:
        seed_generator.python_random = shared


@contextmanager
def _own_settings() -> Iterator[None]:
    """Inside, Keras has its default settings; what user code changes does not reach another model of the process."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def model_digest(model: keras.Model, function: UserFunction) -> str:
    """Hex SHA-256 of architecture, weight shapes and source: the same in every process for the same model."""
    shapes = [[v.name, str(v.dtype), list(v.shape)] for v in model.variables]
    identity = [_architecture(model), shapes, function.reference, function.source_digest]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _outputs(reference: str, model: keras.Model, inputs: dict[str, Any]) -> Any:
    """What the model returns for our inputs by name, symbolic: Keras would sort a dict to match it to a list."""
    given = {id(tensor) for tensor in inputs.values()}
    try:
        used = getattr(model, "inputs", None)  # a model of a user-defined class has none before it is called
        own_call = type(model).call not in _FUNCTIONAL_CALLS
        if used and not own_call and all(id(tensor) in given for tensor in used):
            named = isinstance(model.output, Mapping)
            return model.output if named or len(model.outputs) > 1 else model.outputs[0]
        return model(inputs)
    except (Exception, SystemExit) as failure:
        names, problem = ", ".join(inputs), summary_of(failure)
        raise ModelError(f"the model of {reference} does not accept the inputs {names}: {problem}") from failure


def _architecture(model: keras.Model) -> Any:
    try:
        document = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError):
        return "not serialisable"  # a user-defined class: source and shapes identify it
    names = {model.name: "model"}
    _number_layers(document, names)
    return _renamed(document, names)


def _number_layers(document: Any, names: dict[str, str]) -> None:
    """Name of every layer, also of nested ones, → its number: Keras numbers unnamed layers per process."""
    if isinstance(document, list):
        for value in document:
            _number_layers(value, names)
    if not isinstance(document, dict):
        return
    layers = document.get("layers")
    for layer in layers if isinstance(layers, list) else ():
        # A user-defined class may store anything under this name.
        if isinstance(layer, dict) and isinstance(layer.get("config"), dict):
            names.setdefault(str(layer.get("name") or layer["config"].get("name")), f"layer {len(names)}")
    for value in document.values():
        _number_layers(value, names)


def _renamed(document: Any, names: dict[str, str]) -> Any:
    if isinstance(document, dict):
        return {key: _renamed(value, names) for key, value in document.items()}
    if isinstance(document, list):
        return [_renamed(value, names) for value in document]
    return names.get(document, document) if isinstance(document, str) else document
