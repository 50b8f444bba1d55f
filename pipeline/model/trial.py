"""The instances on which `config check` tries a network, and what it must not return for them.

An instance whose lists are empty comes sooner or later, and a network that divides by the number of elements then
returns NaN: training halts, and predictions fail. Numbers that are not finite for other reasons are not judged here:
the constant values of a complete instance may be none that the network ever gets.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Bools, Float32s
from pipeline.configuration.config import Config
from pipeline.configuration.model.conditional import names_served, served_name
from pipeline.configuration.model.fields import FieldConfig
from pipeline.configuration.model.lists import may_read_lists
from pipeline.configuration.model.towers import vector_names
from pipeline.errors import ModelError
from pipeline.model.network.layout import Layout

_VALUE = 0.01
"""Of weights and dense numbers."""
_HINT = (
    'hint: divide by keras.ops.maximum(number of elements, 1), or use a field with pooling = "mean" that reads the '
    "same table; keras.layers.GlobalAveragePooling1D with a mask divides 0 by 0"
)


@dataclass(frozen=True)
class TrialInstances:
    """A complete instance, one for each field that reads lists, without its elements, and one without any.

    Attributes:
        config: of the model.
        layout: of its inputs.
        fields: those that read lists, in order.
        inputs: [fields + 2, columns].
    """

    config: Config
    layout: Layout
    fields: tuple[FieldConfig, ...]
    inputs: Float32s

    @classmethod
    def of(cls, config: Config, layout: Layout) -> "TrialInstances":
        types = config.events.impressions.columns
        fields = tuple(field for field in config.fields if may_read_lists(field, types))
        inputs = np.full((len(fields) + 2, layout.columns), _VALUE, np.float32)
        for name, length in layout.sequences.items():
            end = layout.starts[name] + _widths(layout)[name]
            inputs[:, end - length : end] = 1.0  # the mask
        trial = cls(config, layout, fields, inputs)
        for row, field in enumerate(fields, 1):
            inputs[[row, -1], trial._columns(field)] = 0.0
        return trial

    def batch(self, rows: int) -> Float32s:
        """[rows, columns], all of them complete."""
        return np.repeat(self.inputs[:1], rows, axis=0)

    def check_predictions(self, predictions: Float32s) -> None:
        """Raise ModelError for a prediction [fields + 2, …] of `inputs` that is finite with lists and not without."""
        wrong = np.isfinite(predictions[0]) & ~np.isfinite(predictions)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            empty = self.fields[row - 1 : row] if row <= len(self.fields) else self.fields
            outputs = self.config.outputs
            names, vectors = names_served(outputs, self.config.output_names), vector_names(outputs)
            name = served_name(names, vectors, int(column), predictions.shape[1])
            raise ModelError(f"output {name} is {predictions[row, column]} {_without(empty)}. {_HINT}")

    def check_gradient(self, gradient: Float32s, *, finite: bool) -> None:
        """Raise ModelError for a gradient [n, columns] of a batch with an instance without lists.

        Args:
            gradient: of a network whose gradient is finite for complete instances.
            finite: whether the weights are finite after the step.
        """
        right: Bools = np.asarray(np.isfinite(gradient).all(axis=0))
        if finite and right.all():
            return
        wrong = [field for field in self.fields if not right[self._columns(field)].all()]
        raise ModelError(f"the gradient is not finite {_without(wrong or self.fields)}. {_HINT}")

    def _columns(self, field: FieldConfig) -> slice:
        start = self.layout.starts[field.name]
        return slice(start, start + _widths(self.layout)[field.name])


def _widths(layout: Layout) -> dict[str, int]:
    return dict(zip(layout.names, layout.widths, strict=True))


def _without(fields: Iterable[FieldConfig]) -> str:
    columns: Sequence[str] = list(dict.fromkeys(column for field in fields for column in field.columns))
    names = ", ".join(field.name for field in fields)
    return f"for an instance without elements in column {', '.join(columns)} (field {names})"
