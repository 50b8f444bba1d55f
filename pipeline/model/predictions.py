"""What serving returns for the outputs of the network: by the same function for the whole model and for its parts."""

from collections.abc import Sequence
from typing import Any

from pipeline.configuration.model.labels import LabelConfig
from pipeline.model.loss.losses import served
from pipeline.model.network.entire_space import conditionals, joint_logits
from pipeline.model.runtime import tf


def predictions(labels: Sequence[LabelConfig], outputs: Any) -> Any:
    """[n, labels] predictions of the outputs [n, labels] of the network, then the conditional ones that are served."""
    found = served(labels, joint_logits(labels, outputs))
    if not any(label.conditional for label in labels):
        return found
    return tf.concat([found, conditionals(labels, outputs)], axis=1)
