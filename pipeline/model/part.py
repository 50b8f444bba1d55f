"""A part of the network in serving: the outputs of some labels, with the inputs and weights that they depend on.

It predicts the bits that the whole network predicts for the same labels: the layers are the same, and what follows them
runs on a tensor of the same shape, in which the outputs of other labels are zeros.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.configuration.config import Config
from pipeline.configuration.model.lists import mask_name
from pipeline.features.scaling import DenseScaling
from pipeline.model.network.failure import naming_the_model
from pipeline.model.network.inputs import named_inputs
from pipeline.model.network.layout import Layout
from pipeline.model.network.served_weights import ServedWeights
from pipeline.model.network.weights import Arrays, check_shapes, shapes_of, unpack
from pipeline.model.part_outputs import PartOutputs
from pipeline.model.runtime import graph_function, keras, names_of_its_own, tf


class PartModel:
    """The outputs of some labels. Thread-safe for `predict`, except while `load_serving` runs.

    It holds the variables of its own layers and no other part of the network, which can be freed.
    """

    @names_of_its_own()
    def __init__(self, config: Config, network: keras.Model, reference: str, labels: Sequence[str]) -> None:
        """The outputs of `labels`, and vectors, of the complete `network`, which the function `reference` has built.

        Raises ModelError if the network computes the outputs of several labels as one tensor.
        """
        outputs = PartOutputs(config, network, labels)
        found = outputs.subnetwork
        self.config = _reading(config, found.inputs)
        """The configuration with the fields and dense inputs that the part reads."""
        self.layout, self._reference = Layout.of(self.config), reference
        self._scaling = DenseScaling(self.config.dense)
        model = found.model(network, self.layout)
        own = {id(variable) for variable in model.variables}
        self._variables = {f"variable/{i}/{v.name}": v.value for i, v in enumerate(network.variables) if id(v) in own}
        self._shapes = shapes_of({name: v.numpy() for name, v in self._variables.items()} | self._scaling.arrays())
        self._predict = _compiled(model, self.layout, outputs)

    def scale(self, inputs: Float32s) -> None:
        """Normalise and clip the dense columns of inputs [n, columns] in place, for `predict`."""
        self._scaling.apply(inputs[:, self.layout.dense_start :])

    def predict(self, inputs: Float32s) -> Float32s:
        """Predictions [n, served names of the part] of inputs [n, columns] float32. Raises ModelError."""
        with naming_the_model(self._reference, inputs, self._outputs):
            return self._outputs(inputs)

    def load_serving(self, packed: bytes) -> None:
        """Predict from `DenseModel.serving_bytes`, of which other variables are left out.

        Raises DamagedError, and ModelError for weights of another model.
        """
        arrays = self._own(packed)
        for name, variable in self._variables.items():
            variable.assign(arrays[name])
        self._scaling.load(arrays)

    def serving_bytes_of(self, packed: bytes) -> bytes:
        """The weights of the part, of those that serving holds; `load_serving` loads both alike.

        Raises DamagedError, and ModelError for weights of another model.
        """
        self._own(packed)
        return ServedWeights.of(packed).cut_to(self._shapes).packed()

    def _own(self, packed: bytes) -> Arrays:
        arrays = {name: array for name, array in unpack(packed).items() if name in self._shapes}
        check_shapes(arrays, self._shapes)
        return arrays

    def _outputs(self, inputs: Float32s) -> Float32s:
        return np.asarray(self._predict(tf.constant(inputs)).numpy(), np.float32)


def _reading(config: Config, inputs: frozenset[str]) -> Config:
    """The configuration with the fields and dense inputs that belong to the model's `inputs`."""
    from_fields = tuple(f for f in config.fields if {f.name, mask_name(f.name)} & inputs)
    return config.model_copy(
        update={"fields": from_fields, "dense": tuple(number for number in config.dense if number.name in inputs)}
    )


def _compiled(model: keras.Model, layout: Layout, outputs: PartOutputs) -> Any:
    """The graph inputs [n, columns] → what is served of the part; it refers to no layer of Keras."""

    def serve(inputs: Any) -> Any:
        return outputs.served(model(named_inputs(layout, inputs), training=False))

    signature = [tf.TensorSpec([None, layout.columns], tf.float32)]
    return graph_function(serve, input_signature=signature).get_concrete_function()
