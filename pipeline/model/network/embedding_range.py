"""Indices outside an Embedding layer's range give NaN.

TensorFlow compiled by XLA clamps such an index and reads another row; without XLA it raises. NaN halts the trainer,
which names the sample, and is an error response of a replica.
"""

from typing import Any

from pipeline.model.runtime import keras


def refuse_clamping(model: keras.Model) -> None:
    """Let every Embedding layer of the model, of nested models too, give NaN for an index outside its range."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Embedding) and type(layer).call is keras.layers.Embedding.call:
            layer.call = _checking(layer, layer.call)


def _checking(layer: Any, call: Any) -> Any:
    ops, rows = keras.ops, layer.input_dim

    def checked(inputs: Any) -> Any:
        valid = ops.logical_and(inputs > -1, inputs < rows)  # of a fraction the integer part counts
        return ops.where(ops.expand_dims(valid, -1), call(inputs), float("nan"))

    return checked
