"""Outputs of labels that are learned with fake negatives as they are. NumPy only.

An impression yields a negative at once and a positive with probability p, so the network learns b = p / (1 + p), and
p = b / (1 − b) = exp(z) for its logit z (Ktena et al. 2019, "Addressing Delayed Feedback for Continuous Training with
Neural Networks in CTR prediction", fake negative calibration).
"""

import numpy as np

from pipeline.arrays.types import Float64s

_LARGEST = -1e-7
"""Of z: above, p would be 1 and its logit infinite."""


def logits_of_odds(outputs: Float64s) -> Float64s:
    """[n] the logits of p.

    >>> [round(float(1 / (1 + np.exp(-z))), 6) for z in logits_of_odds(np.log([0.01, 0.5]))]
    [0.01, 0.5]
    """
    z = np.minimum(outputs, _LARGEST)
    return np.asarray(z - np.log(-np.expm1(z)))
