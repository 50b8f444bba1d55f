"""The outputs of the user's network: one tensor [batch, labels], or one output for each label by its name.

A label with two towers has two outputs in place of its own, vectors of one size, whose product is the label's output:

    | output of each label, 1 wide | vector of the query | vector of the item |
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.model.towers import TowersConfig, towers_of, vector_names
from pipeline.errors import ModelError
from pipeline.model.runtime import keras

layers = keras.layers
_ONE: tuple[Any, ...] = ([None], [None, 1])
"""The shapes of a named output."""


def logits_of(reference: str, model: keras.Model, outputs: Any, labels: Sequence[LabelConfig]) -> Any:
    """The symbolic tensor [batch, labels] of what the model returns, in the order of the labels; vectors follow.

    Args:
        reference: of the user's function, for errors.
        model: the user's.
        outputs: a tensor [batch, labels], or by label name a tensor [batch] or [batch, 1], by that of a tower [batch,
            dim].
        labels: in the order of the result.

    Raises:
        ModelError: an output is missing, unknown, of another shape, or a probability where a logit is wanted.
    """
    if isinstance(outputs, Mapping):
        return _joined(reference, outputs, labels)
    got = list(outputs.shape) if hasattr(outputs, "shape") else f"{len(outputs)} outputs"
    wanted = [None, len(labels)]
    if vectors := vector_names(labels):
        hint = "hint: return keras.Model(inputs, {name: output})"
        raise ModelError(
            f"the model of {reference} returns {got}, wanted the vectors {', '.join(vectors)} by name. {hint}"
        )
    if got != wanted:
        hint = f"hint: one output for each of the labels {_names(labels)}"
        raise ModelError(f"the model of {reference} returns {got}, wanted {wanted}. {hint}")
    last = model.layers[-1] if model.layers else None
    if any(label.logistic for label in labels):
        _refuse_sigmoid(f"the model of {reference}", last)
    return outputs


def _joined(reference: str, outputs: Mapping[str, Any], labels: Sequence[LabelConfig]) -> Any:
    """The named outputs side by side."""
    vectors = vector_names(labels)
    names = [label.name for label in labels if label.towers is None] + list(vectors)
    if set(outputs) != set(names):
        got = ", ".join(map(str, outputs)) or "nothing"
        wanted = f"labels {_names(labels)}" if not vectors else f"names {', '.join(names)}"
        raise ModelError(
            f"the model of {reference} returns the outputs {got}, wanted one for each of the {wanted}. "
            "hint: an output has the name of its label or tower"
        )
    towers = towers_of(labels)
    pair = [] if towers is None else _vectors(reference, towers, outputs)
    columns = []
    for label in labels:
        if label.towers is not None:
            columns.append(_output_of(label.towers, pair))
            continue
        output, name = outputs[label.name], f"output {label.name} of the model of {reference}"
        shape: Any = list(output.shape) if hasattr(output, "shape") else type(output).__name__
        if shape not in _ONE:
            raise ModelError(f"{name} is {shape}, wanted [None] or [None, 1]. hint: end it in Dense(1)")
        if label.logistic:
            _refuse_sigmoid(name, getattr(getattr(output, "_keras_history", None), "operation", None))
        columns.append(output if len(shape) == 2 else layers.Reshape((1,), dtype="float32")(output))
    # Without a type of its own, a layer would compute in that of the user's mixed policy.
    columns += pair
    return columns[0] if len(columns) == 1 else layers.Concatenate(dtype="float32")(columns)


def _vectors(reference: str, towers: TowersConfig, outputs: Mapping[str, Any]) -> list[Any]:
    """The vectors of query and item as they are served."""
    pair = []
    for name in (towers.query, towers.item):
        shape: Any = list(getattr(outputs[name], "shape", ()))
        if len(shape) != 2 or not isinstance(shape[1], int):
            raise ModelError(
                f"output {name} of the model of {reference} is {shape}, wanted [None, dim]. hint: end it in Dense(dim)"
            )
        pair.append(outputs[name])
    dims = [vector.shape[1] for vector in pair]
    if dims[0] != dims[1]:
        raise ModelError(
            f"the model of {reference} returns {towers.query} of dim {dims[0]} and {towers.item} of dim {dims[1]}. "
            "hint: the same dim for both"
        )
    if towers.normalise:
        return [layers.UnitNormalization(dtype="float32")(vector) for vector in pair]
    return pair


def _output_of(towers: TowersConfig, pair: list[Any]) -> Any:
    """[batch, 1] ⟨query, item⟩ / temperature."""
    product = layers.Dot(axes=1, dtype="float32")(pair)
    return layers.Rescaling(1 / towers.temperature, dtype="float32")(product)


def _refuse_sigmoid(name: str, last: Any) -> None:
    if getattr(last, "activation", None) is keras.activations.sigmoid:
        raise ModelError(f"{name} ends in a sigmoid, wanted logits. hint: leave the last activation out")


def _names(labels: Sequence[LabelConfig]) -> str:
    return ", ".join(label.name for label in labels)
