"""What serving returns for the outputs of the network: by the same function for the whole model and for its parts."""

from collections.abc import Sequence
from typing import Any

from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.model.towers import towers_of
from pipeline.model.loss.losses import served
from pipeline.model.network.entire_space import conditionals, joint_logits
from pipeline.model.runtime import tf


def predictions(labels: Sequence[LabelConfig], outputs: Any) -> Any:
    """[n, labels] predictions of the outputs of the network, then the conditional ones that are served, then vectors.

    Args:
        labels: in the order of the outputs.
        outputs: [n, labels], then the vectors of two towers.
    """
    of_labels = outputs[:, : len(labels)] if towers_of(labels) else outputs
    found = [served(labels, joint_logits(labels, of_labels))]
    if any(label.conditional for label in labels):
        found.append(conditionals(labels, of_labels))
    if towers_of(labels):
        found.append(outputs[:, len(labels) :])
    return found[0] if len(found) == 1 else tf.concat(found, axis=1)
