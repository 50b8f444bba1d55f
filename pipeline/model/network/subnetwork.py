"""The part of the user's network that some labels depend on, found in Keras's graph of layers.

A label depends on a layer if a path of tensors leads from one to the other; a nested model counts as one layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ModelError
from pipeline.model.network.layout import Layout
from pipeline.model.runtime import keras


@dataclass(frozen=True)
class Subnetwork:
    """Some outputs of a network.

    Attributes:
        outputs: by name of a label or vector, its symbolic output [batch, 1 or dim].
        inputs: the names of the network's inputs that they depend on.
    """

    outputs: dict[str, Any]
    inputs: frozenset[str]

    @classmethod
    def of(
        cls, network: keras.Model, labels: Sequence[str], chosen: Sequence[str], vectors: Sequence[str] = ()
    ) -> "Subnetwork":
        """The outputs `chosen` of a network with outputs for `labels`, then for `vectors`. Raises ModelError."""
        columns = dict(zip((*labels, *vectors), output_columns(network, len(labels), len(vectors)), strict=True))
        outputs = {name: column for name, column in columns.items() if name in chosen}
        return cls(outputs, frozenset(inputs_of(outputs.values())))

    def model(self, network: keras.Model, layout: Layout) -> keras.Model:
        """The inputs of `layout` → a list of the outputs; it shares the layers of `network`."""
        return self._over(network, layout.input_names)

    def own_model(self, network: keras.Model) -> keras.Model:
        """The inputs that the outputs depend on → a list of the outputs; it shares the layers of `network`."""
        return self._over(network, sorted(self.inputs))

    def _over(self, network: keras.Model, names: Sequence[str]) -> keras.Model:
        given = network.input if isinstance(network.input, dict) else {t.name: t for t in network.inputs}
        return keras.Model({name: given[name] for name in names}, list(self.outputs.values()))


def output_columns(network: keras.Model, count: int, vectors: int = 0) -> list[Any]:
    """The symbolic outputs [batch, 1] of `count` labels, then the vectors.

    Raises ModelError if the outputs of labels are computed as one tensor.
    """
    joined = network.outputs[0]
    if count + vectors == 1:
        return [joined]
    node = node_of(joined)
    parts = list(node.input_tensors)
    if vectors:
        return parts  # by name, so that each is a tensor of its own
    if type(node.operation) is not keras.layers.Concatenate or [list(p.shape) for p in parts] != [[None, 1]] * count:
        raise ModelError(
            f"the network computes the outputs of {count} labels as one tensor, so that they cannot be served apart. "
            "hint: return them by name, as keras.Model(inputs, {label: output})"
        )
    return parts


def inputs_of(tensors: Any) -> set[str]:
    """The names of the inputs that symbolic tensors depend on."""
    found, seen, waiting = set(), set(), list(tensors)
    while waiting:
        node = node_of(waiting.pop())
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.is_input:
            found.add(node.operation.name)
        waiting.extend(node.input_tensors)
    return found


def node_of(tensor: Any) -> Any:
    """The call that computes a symbolic tensor."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]
