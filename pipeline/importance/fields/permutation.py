"""Permutation importance: how much the loss rises when the values of some inputs are shuffled among samples.

Breiman, "Random Forests" (2001), section 10, on the loss as in Fisher, Rudin and Dominici, "All models are wrong, but
many are useful" (2019), equation 3. Inputs of one group move together and keep the values that they have together.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.arrays.types import Float32s, Float64s
from pipeline.importance.fields.estimate import Advance, Losses, others


def rise_when_shuffled(
    inputs: Float32s, losses: Losses, groups: Sequence[Sequence[slice]], repeats: int, seed: int, advance: Advance
) -> Float64s:
    """[groups, n] how much the loss of each sample rises, as a mean over `repeats` shuffles.

    Args:
        inputs: [n, columns], n ≥ 2; unchanged afterwards.
        losses: of these samples; evaluated `evaluations(len(groups), repeats)` times.
        groups: the columns that are shuffled together.
        repeats: shuffles of each group, ≥ 1.
        seed: decides the shuffles.
        advance: called after each evaluation.
    """
    random, changed = np.random.default_rng([seed, 1]), inputs.copy()
    before = losses(inputs)
    advance()
    rise = np.zeros((len(groups), len(inputs)))
    for group, columns in enumerate(groups):
        for _ in range(repeats):
            donors = others(random, len(inputs))
            for part in columns:
                changed[:, part] = inputs[donors, part]
            rise[group] += losses(changed) - before
            advance()
        for part in columns:
            changed[:, part] = inputs[:, part]
    return rise / repeats


def evaluations(groups: int, repeats: int) -> int:
    """How often `rise_when_shuffled` evaluates the losses."""
    return 1 + groups * repeats
