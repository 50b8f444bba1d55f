"""The outputs of a part of the network, and the predictions that are served of them."""

from collections.abc import Sequence
from typing import Any

from pipeline.configuration.config import Config
from pipeline.configuration.model.conditional import names_served, with_given
from pipeline.configuration.model.towers import vector_names
from pipeline.model.network.subnetwork import Subnetwork
from pipeline.model.predictions import predictions
from pipeline.model.runtime import keras, tf


class PartOutputs:
    """The outputs of some labels and vectors."""

    def __init__(self, config: Config, network: keras.Model, labels: Sequence[str]) -> None:
        """Of the complete `network`. Raises ModelError if it computes the outputs of several labels as one tensor."""
        outputs, vectors = config.outputs, vector_names(config.outputs)
        of_labels = [name for name in labels if name not in vectors]
        chosen = (*with_given(outputs, of_labels), *(name for name in vectors if name in labels))
        self.subnetwork = Subnetwork.of(network, config.output_names, chosen, vectors)
        """Its outputs, also those that a conditional label is a product of."""
        self._labels = outputs
        dim = (network.outputs[0].shape[1] - len(outputs)) // max(len(vectors), 1)
        self._widths = {name: dim if name in vectors else 1 for name in (*config.output_names, *vectors)}
        places = [*names_served(outputs, config.output_names), *(name for name in vectors for _ in range(dim))]
        names = [*names_served(outputs, of_labels), *(name for name in vectors if name in labels)]
        self._served = [place for name in names for place, other in enumerate(places) if name == other]

    def served(self, columns: Any) -> Any:
        """[n, served names] predictions of the outputs of `subnetwork`, a list of [n, 1 or dim], or the only one.

        The outputs of other labels are zeros: what follows runs on a tensor of the shape that the whole network has.
        """
        own = dict(zip(self.subnetwork.outputs, columns if isinstance(columns, list) else [columns], strict=True))
        rows = tf.shape(next(iter(own.values())))[0]

        def output(name: str) -> Any:
            return tf.cast(own[name], tf.float32) if name in own else tf.zeros([rows, self._widths[name]])

        joined = tf.concat([output(name) for name in self._widths], axis=1)
        return tf.gather(predictions(self._labels, joined), self._served, axis=1)
