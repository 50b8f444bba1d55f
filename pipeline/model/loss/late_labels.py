"""Importance weights for labels whose positives may come after their negative was learned.

With p the probability of a positive and δ the share of positives that come late, an impression yields a negative with
probability 1 − p + δp and a positive with probability p, and each impression 1 + δp samples. With p_dp = δp and
p_rn = (1 − p) / (1 − p + δp), the weights of ES-DFM

    positive   1 + p_dp
    negative   (1 + p_dp) · p_rn

make the expected gradient that of the true label (Yang et al. 2021, "Capturing Delayed Feedback in Conversion Rate
Prediction via Elapsed-Time Sampling", the importance weighted loss; there, classifiers of their own estimate p_dp and
p_rn). With δ = 1, every positive comes late and the weights are those of fake negatives (Ktena et al. 2019, "Addressing
Delayed Feedback for Continuous Training with Neural Networks in CTR prediction", fake negative weighted). p is the
network's own prediction, through which no gradient flows.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.model.runtime import tf

_LARGEST_OUTPUT = 30.0
"""exp of a larger one times a weight would lose all digits."""


def importance_weights(outputs: Any, late_shares: Sequence[float]) -> tuple[Any, Any]:
    """The factors of positives and negatives, [n, labels] each.

    Args:
        outputs: [n, labels] logits as serving would use them.
        late_shares: [labels] δ; 0 for a label without correction, whose factors are 1.
    """
    z, late = tf.stop_gradient(tf.minimum(outputs, _LARGEST_OUTPUT)), tf.constant(late_shares, tf.float32)
    each = 1 + late * tf.sigmoid(z)
    return each, each / (1 + late * tf.exp(z))
