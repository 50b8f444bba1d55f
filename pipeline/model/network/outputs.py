"""The outputs of the user's network: one tensor [batch, labels], or one output for each label by its name."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import ModelError
from pipeline.model.runtime import keras

layers = keras.layers
_ONE: tuple[Any, ...] = ([None], [None, 1])
"""The shapes of a named output."""


def logits_of(reference: str, model: keras.Model, outputs: Any, labels: Sequence[LabelConfig]) -> Any:
    """The symbolic tensor [batch, labels] of what the model returns, in the order of the labels.

    Args:
        reference: of the user's function, for errors.
        model: the user's.
        outputs: a tensor [batch, labels], or by label name a tensor [batch] or [batch, 1].
        labels: in the order of the result.

    Raises:
        ModelError: an output is missing, unknown, of another shape, or a probability where a logit is wanted.
    """
    if isinstance(outputs, Mapping):
        return _joined(reference, outputs, labels)
    got = list(outputs.shape) if hasattr(outputs, "shape") else f"{len(outputs)} outputs"
    wanted = [None, len(labels)]
    if got != wanted:
        hint = f"hint: one output for each of the labels {_names(labels)}"
        raise ModelError(f"the model of {reference} returns {got}, wanted {wanted}. {hint}")
    last = model.layers[-1] if model.layers else None
    if any(label.logistic for label in labels):
        _refuse_sigmoid(f"the model of {reference}", last)
    return outputs


def _joined(reference: str, outputs: Mapping[str, Any], labels: Sequence[LabelConfig]) -> Any:
    """The named outputs side by side."""
    if set(outputs) != {label.name for label in labels}:
        got = ", ".join(map(str, outputs)) or "nothing"
        raise ModelError(
            f"the model of {reference} returns the outputs {got}, wanted one for each of the labels {_names(labels)}. "
            "hint: an output has the name of its label"
        )
    columns = []
    for label in labels:
        output, name = outputs[label.name], f"output {label.name} of the model of {reference}"
        shape: Any = list(output.shape) if hasattr(output, "shape") else type(output).__name__
        if shape not in _ONE:
            raise ModelError(f"{name} is {shape}, wanted [None] or [None, 1]. hint: end it in Dense(1)")
        if label.logistic:
            _refuse_sigmoid(name, getattr(getattr(output, "_keras_history", None), "operation", None))
        columns.append(output if len(shape) == 2 else layers.Reshape((1,), dtype="float32")(output))
    # Without a type of its own, a layer would compute in that of the user's mixed policy.
    return columns[0] if len(columns) == 1 else layers.Concatenate(dtype="float32")(columns)


def _refuse_sigmoid(name: str, last: Any) -> None:
    if getattr(last, "activation", None) is keras.activations.sigmoid:
        raise ModelError(f"{name} ends in a sigmoid, wanted logits. hint: leave the last activation out")


def _names(labels: Sequence[LabelConfig]) -> str:
    return ", ".join(label.name for label in labels)
