"""Importance weights for labels whose positives may come after their negative was learned.

With p the probability of a positive and δ the share of positives that come late, an impression yields a negative with
probability 1 − p + δp and a positive with probability p, and each impression 1 + δp samples. With p_dp = δp and
p_rn = (1 − p) / (1 − p + δp), the weights of ES-DFM

    positive   1 + p_dp
    negative   (1 + p_dp) · p_rn

make the expected gradient that of the true label (Yang et al. 2021, "Capturing Delayed Feedback in Conversion Rate
Prediction via Elapsed-Time Sampling", the importance weighted loss). There, and with labels that have `estimates`,
classifiers of their own give p_dp and 1 − p_rn: outputs of the same network, learned from the same samples, through
which the weights let no gradient flow. So the share of late positives may differ between impressions. With δ = 1, every
positive comes late and the weights are those of fake negatives (Ktena et al. 2019, "Addressing Delayed Feedback for
Continuous Training with Neural Networks in CTR prediction", fake negative weighted). p is the network's own prediction,
through which no gradient flows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.configuration.model.labels import LabelConfig
from pipeline.configuration.model.late_estimates import ESTIMATES, estimators_of
from pipeline.model.runtime import tf

_LARGEST_OUTPUT = 30.0
"""exp of a larger one times a weight would lose all digits."""


@dataclass(frozen=True)
class LateEstimate:
    """The outputs, by their places, that estimate p_dp and 1 − p_rn for the weights of another output."""

    label: int
    delayed_positive: int
    fake_negative: int


def late_estimates_of(labels: Sequence[LabelConfig]) -> tuple[LateEstimate, ...]:
    """One for every label whose late positives two others estimate.

    >>> dp = LabelConfig(name="dp", target="bought", estimates="delayed_positive")
    >>> fn = LabelConfig(name="fn", target="bought", estimates="fake_negative")
    >>> late_estimates_of([LabelConfig(name="bought", correction="importance"), dp, fn])
    (LateEstimate(label=0, delayed_positive=1, fake_negative=2),)
    """
    places, estimators = {label.name: place for place, label in enumerate(labels)}, estimators_of(labels)
    return tuple(
        LateEstimate(place, *(places[estimators[label.source][each].name] for each in ESTIMATES))
        for place, label in enumerate(labels)
        if label.corrected_late_share and label.late_share is None and label.source in estimators
    )


def importance_weights(
    outputs: Any, late_shares: Sequence[float], estimates: Sequence[LateEstimate] = ()
) -> tuple[Any, Any]:
    """The factors of positives and negatives, [n, labels] each.

    Args:
        outputs: [n, labels] logits as serving would use them.
        late_shares: [labels] δ; 0 for a label without correction, whose factors are 1.
        estimates: for the labels whose factors follow from other outputs instead.
    """
    z, late = tf.stop_gradient(tf.minimum(outputs, _LARGEST_OUTPUT)), tf.constant(late_shares, tf.float32)
    each = 1 + late * tf.sigmoid(z)
    positive, negative = each, each / (1 + late * tf.exp(z))
    if not estimates:
        return positive, negative
    columns = [tf.unstack(factors, len(late_shares), axis=1) for factors in (positive, negative)]
    for estimate in estimates:
        of_positive = 1 + tf.sigmoid(z[:, estimate.delayed_positive])
        columns[0][estimate.label] = of_positive
        columns[1][estimate.label] = of_positive * tf.sigmoid(-z[:, estimate.fake_negative])
    return tf.stack(columns[0], axis=1), tf.stack(columns[1], axis=1)
