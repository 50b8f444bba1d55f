"""The named inputs of the user's Keras model, and their values in the `[batch, columns]` tensor (see `layout`).

| input | shape | type |
|---|---|---|
| field or dense number | [batch, width] | float32 |
| field with pooling `none` | [batch, max_length, dim] | float32; zeros after the last element |
| its `NAME_mask` | [batch, max_length] | bool; true for elements |
"""

from typing import Any

from pipeline.configuration.model.lists import mask_name
from pipeline.model.network.layout import Layout
from pipeline.model.runtime import keras, tf


def symbolic_inputs(layout: Layout) -> dict[str, Any]:
    """A `keras.Input` by name."""
    inputs: dict[str, Any] = {}
    for name, width in zip(layout.names, layout.widths, strict=True):
        if name not in layout.sequences:
            inputs[name] = keras.Input((width,), dtype="float32", name=name)
            continue
        length, dim = _shape_of(layout, name, width)
        inputs[name] = keras.Input((length, dim), dtype="float32", name=name)
        inputs[mask_name(name)] = keras.Input((length,), dtype="bool", name=mask_name(name))
    return inputs


def named_inputs(layout: Layout, matrix: Any) -> dict[str, Any]:
    """The part of `matrix` [batch, columns] that each input reads. No gradient flows back into masks."""
    inputs: dict[str, Any] = {}
    pieces = tf.split(matrix, layout.widths, axis=1)
    for name, width, piece in zip(layout.names, layout.widths, pieces, strict=True):
        if name not in layout.sequences:
            inputs[name] = piece
            continue
        length, dim = _shape_of(layout, name, width)
        rows, mask = tf.split(piece, [length * dim, length], axis=1)
        inputs[name] = tf.reshape(rows, [-1, length, dim])
        inputs[mask_name(name)] = mask > 0.5
    return inputs


def _shape_of(layout: Layout, name: str, width: int) -> tuple[int, int]:
    """Length and dim of a sequence."""
    length = layout.sequences[name]
    return length, width // length - 1
