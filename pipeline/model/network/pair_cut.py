"""Where a network over pairs of a user and an item is cut: what the user alone decides, what the item alone decides."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pipeline.model.network.subnetwork import Subnetwork, inputs_of, node_of
from pipeline.model.runtime import keras

_CARRIED = ("float32", "float16", "bfloat16", "bool")
"""The types whose values float32 represents."""


@dataclass(frozen=True)
class PairCut:
    """The symbolic tensors [batch, …] at which the network is cut, each a value for one user or one item."""

    users: tuple[Any, ...]
    items: tuple[Any, ...]

    @classmethod
    def at_inputs(cls, network: keras.Model, read: Collection[str], of_items: Collection[str]) -> "PairCut":
        """Below every layer, at the inputs `read`: either side decides its inputs."""
        given = [tensor for tensor in network.inputs if tensor.name in read]
        sides = ([t for t in given if (t.name in of_items) == of_item] for of_item in (False, True))
        return cls(*map(tuple, sides))

    @classmethod
    def of(cls, network: keras.Model, found: Subnetwork, of_items: Collection[str]) -> "PairCut":
        """Above every layer whose inputs one side decides alone; `of_items` names the inputs of items.

        It is `at_inputs` if layers mask elements implicitly, because a cut would lose the mask, if a tensor is not of a
        row per sample, if an output depends on one side alone, or if a layer at the cut is called above it once more:
        Keras would take that call for an input, too.
        """
        (users, items), above = _sides(found, of_items)
        cut = cls(tuple(users), tuple(items))
        carried = all(t.dtype in _CARRIED and _in_rows(t.shape) for t in (*cut.users, *cut.items))
        outputs = {id(t) for t in found.outputs.values()}
        alone = outputs & {id(t) for t in (*cut.users, *cut.items)}
        again = above & {id(node_of(t).operation) for t in (*cut.users, *cut.items)}
        if carried and not alone and not again and not any(map(_masks, network._flatten_layers())):
            return cut
        return cls.at_inputs(network, found.inputs, of_items)


def _sides(found: Subnetwork, of_items: Collection[str]) -> tuple[tuple[list[Any], list[Any]], set[int]]:
    """The last tensors that depend on users, and on items, alone, on the way from the inputs to the outputs; and the
    ids of the layers above them."""
    cut: tuple[list[Any], list[Any]] = ([], [])
    above: set[int] = set()
    seen, waiting = set(), list(found.outputs.values())
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        sides = {name in of_items for name in inputs_of([tensor])}
        if len(sides) > 1:
            above.add(id(node_of(tensor).operation))
            waiting.extend(node_of(tensor).input_tensors)
        else:
            cut[sides.pop()].append(tensor)
    return cut, above


def _in_rows(shape: Any) -> bool:
    return shape[0] is None and None not in shape[1:]


def _masks(layer: Any) -> bool:
    """Whether a layer may make a mask that later layers receive beside its output."""
    if isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False):
        return True
    own = type(layer).compute_mask is not keras.layers.Layer.compute_mask
    return own and not type(layer).__module__.startswith("keras.")
