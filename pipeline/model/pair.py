"""A label over pairs of a user and an item, in three parts: the user's layers, the item's layers, and those over both.

What a user decides is computed once for all items, what an item decides once for all users. The predictions are those
of the whole network up to the rounding of sums, which may depend on the number of rows.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.configuration.config import Config
from pipeline.configuration.model.lists import mask_name
from pipeline.features.scaling import DenseScaling
from pipeline.model.network.failure import naming_the_model
from pipeline.model.network.inputs import named_inputs
from pipeline.model.network.layout import Layout
from pipeline.model.network.pair_cut import PairCut
from pipeline.model.network.weights import Arrays, unpack
from pipeline.model.part import PartModel
from pipeline.model.part_outputs import PartOutputs
from pipeline.model.runtime import graph_function, keras, names_of_its_own, tf


class PairSide:
    """What one side decides. Thread-safe for `parts`, except while `load` runs."""

    def __init__(self, config: Config, network: keras.Model, reference: str, cut: Sequence[Any]) -> None:
        """`config` has the fields and dense inputs of the side, `cut` the tensors of `network` that they decide."""
        self.config, self.layout = config, Layout.of(config)
        """The fields and dense inputs of the side, and the columns of its inputs."""
        self._reference, self._scaling = reference, DenseScaling(config.dense)
        given = {tensor.name: tensor for tensor in network.inputs}
        model = keras.Model({name: given[name] for name in self.layout.input_names}, list(cut)) if cut else None
        self._parts = _compiled_parts(model, self.layout)

    def load(self, arrays: Arrays) -> None:
        """Replace the statistics of dense inputs."""
        self._scaling.load(arrays)

    def parts(self, inputs: Float32s) -> Float32s:
        """[n, width] float32: what the rows of inputs [n, columns], before scaling, decide. Raises ModelError."""
        scaled = inputs.copy()
        self._scaling.apply(scaled[:, self.layout.dense_start :])
        with naming_the_model(self._reference, scaled, self._computed):
            return self._computed(scaled)

    def _computed(self, inputs: Float32s) -> Float32s:
        return np.asarray(self._parts(tf.constant(inputs)).numpy(), np.float32)


class PairModel:
    """Thread-safe for `scores` and the `parts` of its sides, except while `load_serving` runs."""

    @names_of_its_own()
    def __init__(
        self,
        config: Config,
        network: keras.Model,
        reference: str,
        label: str,
        of_items: Callable[[Config], Collection[str]],
    ) -> None:
        """The outputs of `label` of the complete `network`, which the function `reference` has built.

        `of_items` names the fields and dense inputs of items, of those in a configuration. Raises ModelError as
        `PartModel`, and what `of_items` raises.
        """
        self._whole, self._reference = PartModel(config, network, reference, (label,)), reference
        own = self._whole.config
        items = {*of_items(own)}
        outputs = PartOutputs(config, network, (label,))
        names = items | {mask_name(name) for name in items}
        cut = PairCut.of(network, outputs.subnetwork, names)
        sides = [_with_inputs(own, {*self._whole.layout.names} - items), _with_inputs(own, items)]
        if not all(_row_for_row(network, *side) for side in zip(sides, (cut.users, cut.items), strict=True)):
            cut = PairCut.at_inputs(network, outputs.subnetwork.inputs, names)
        self.users = PairSide(sides[0], network, reference, cut.users)
        """What users decide."""
        self.items = PairSide(sides[1], network, reference, cut.items)
        """What items decide."""
        self._scores = _compiled_scores(cut, outputs)

    def load_serving(self, packed: bytes) -> None:
        """Replace the dense weights, as `PartModel.load_serving`."""
        self._whole.load_serving(packed)
        arrays = unpack(packed)
        for side in (self.users, self.items):
            side.load(arrays)

    def scores(self, user: Float32s, items: Float32s) -> Float32s:
        """[n] float32: the predictions for a user's parts [u] and those of n items [n, i]. Raises ModelError."""

        def computed(rows: Float32s) -> Float32s:
            return np.asarray(self._scores(tf.constant(user), tf.constant(rows)).numpy(), np.float32)

        with naming_the_model(self._reference, items, computed):
            return computed(items)


def _with_inputs(config: Config, names: Collection[str]) -> Config:
    fields, dense = ([each for each in some if each.name in names] for some in (config.fields, config.dense))
    return config.model_copy(update={"fields": tuple(fields), "dense": tuple(dense)})


def _row_for_row(network: keras.Model, config: Config, cut: Sequence[Any]) -> bool:
    """Whether each tensor of a side has a row for each row of its inputs, and not, say, one for each element."""
    layout = Layout.of(config)
    given = {tensor.name: tensor for tensor in network.inputs}
    if not cut:
        return True
    model = keras.Model({name: given[name] for name in layout.input_names}, list(cut))
    found = model(named_inputs(layout, tf.zeros([3, layout.columns])), training=False)
    return all(tensor.shape[0] == 3 for tensor in (found if isinstance(found, list) else [found]))


def _compiled_parts(model: keras.Model | None, layout: Layout) -> Any:
    """The graph inputs [n, columns] → the tensors of a side, one after the other, [n, width]."""

    def parts(inputs: Any) -> Any:
        rows = tf.shape(inputs)[0]
        if model is None:
            return tf.zeros([rows, 0])
        found = model(named_inputs(layout, inputs), training=False)
        flat = [tf.reshape(tf.cast(t, tf.float32), [rows, math.prod(t.shape[1:])]) for t in _listed(found)]
        return tf.concat(flat, axis=1)

    signature = [tf.TensorSpec([None, layout.columns], tf.float32)]
    return graph_function(parts, input_signature=signature).get_concrete_function()


def _compiled_scores(cut: PairCut, outputs: PartOutputs) -> Any:
    """The graph of a user's parts [u] and those of n items [n, i] → the predictions [n]."""
    columns = list(outputs.subnetwork.outputs.values())
    model = keras.Model([*cut.users, *cut.items], columns)
    widths = [sum(math.prod(t.shape[1:]) for t in side) for side in (cut.users, cut.items)]

    def scores(user: Any, items: Any) -> Any:
        rows = tf.shape(items)[0]
        users = [tf.broadcast_to(t, [rows, *t.shape[1:]]) for t in _tensors(user[tf.newaxis], cut.users)]
        given = [*users, *_tensors(items, cut.items)]
        return outputs.served(model(given, training=False))[:, 0]

    signature = [tf.TensorSpec([widths[0]], tf.float32), tf.TensorSpec([None, widths[1]], tf.float32)]
    return graph_function(scores, input_signature=signature).get_concrete_function()


def _tensors(parts: Any, cut: Sequence[Any]) -> list[Any]:
    """The tensors of a side by its parts [n, width]."""
    if not cut:
        return []
    pieces = tf.split(parts, [math.prod(t.shape[1:]) for t in cut], axis=1)
    shaped = [tf.reshape(piece, [-1, *t.shape[1:]]) for piece, t in zip(pieces, cut, strict=True)]
    return [
        tensor > 0.5 if t.dtype == "bool" else tf.cast(tensor, t.dtype) for tensor, t in zip(shaped, cut, strict=True)
    ]


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]
