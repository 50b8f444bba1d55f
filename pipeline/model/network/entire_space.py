"""Labels as products of probabilities: the logits of joint events from those of conditional ones.

ESMM learns a conversion over all impressions, and not only over clicked ones: p(click and conversion) is p(click) times
p(conversion | click), and both factors learn from the labels of all impressions (Ma et al. 2018, "Entire Space
Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate", equation 2).
"""

from collections.abc import Sequence
from typing import Any

from pipeline.configuration.model.labels import LabelConfig
from pipeline.model.runtime import tf


def joint_logits(labels: Sequence[LabelConfig], outputs: Any) -> Any:
    """[n, labels] the logits of the labels.

    Args:
        labels: in the order of the outputs.
        outputs: [n, labels] of the network; of a label with `given`, the logit of the conditional probability. Further
            columns stay as they are.
    """
    if not any(label.given for label in labels):
        return outputs
    by_name = {label.name: (label, outputs[:, i]) for i, label in enumerate(labels)}

    def joint(name: str) -> Any:
        label, own = by_name[name]
        return own if label.given is None else logit_of_product(joint(label.given), own)

    joined = tf.stack([joint(label.name) for label in labels], axis=1)
    if outputs.shape[1] == len(labels):
        return joined
    return tf.concat([joined, outputs[:, len(labels) :]], axis=1)


def conditionals(labels: Sequence[LabelConfig], outputs: Any) -> Any:
    """[n, names] the conditional probabilities that are served, from the network's outputs as in `joint_logits`."""
    served = [i for i, label in enumerate(labels) if label.conditional]
    return tf.sigmoid(tf.gather(outputs, served, axis=1))


def logit_of_product(a: Any, b: Any) -> Any:
    """[n] the logit of σ(a)·σ(b), for logits [n] of any size.

    With p = σ(a)·σ(b), (1 − p) / p is (1 + e⁻ᵃ)(1 + e⁻ᵇ) − 1 = e⁻ᵃ + e⁻ᵇ + e⁻ᵃ⁻ᵇ: a sum of positive terms. Its
    logarithm loses no digits where p or 1 − p does, and the gradient is finite.
    """
    return -tf.reduce_logsumexp(tf.stack([-a, -b, -(a + b)]), axis=0)
