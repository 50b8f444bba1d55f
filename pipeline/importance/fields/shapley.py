"""Sampled Shapley values: how much of the loss each input takes away, shared fairly among inputs that work together.

A sample's inputs are replaced one by one, in a random order, from the values of another random sample to its own. What
an input takes away from the loss at its turn, averaged over orders and samples, is its Shapley value: Castro, Gómez and
Tejada, "Polynomial calculation of the Shapley value based on sampling" (2009), algorithm 1; Štrumbelj and Kononenko,
"Explaining prediction models and individual predictions with feature contributions" (2014), section 3; on the loss:
Covert, Lundberg and Lee, "Understanding Global Feature Contributions With Additive Importance Measures" (2020).

The values of a sample add up to the loss with another sample's inputs minus its own loss, exactly. Two inputs with the
same information share what shuffling either of them does not cost.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.arrays.types import Float32s, Float64s
from pipeline.importance.fields.estimate import Advance, Losses, others


def shapley_values(
    inputs: Float32s, losses: Losses, columns: Sequence[slice], orders: int, seed: int, advance: Advance
) -> Float64s:
    """[inputs, n] what each input takes away from the loss of each sample, as a mean over random orders.

    Args:
        inputs: [n, columns], n ≥ 2; unchanged afterwards.
        losses: of these samples; evaluated `evaluations(len(columns), orders)` times.
        columns: of each input.
        orders: random orders for each sample, ≥ 1.
        seed: decides orders and the other samples.
        advance: called after each evaluation.
    """
    random, n, count = np.random.default_rng([seed, 2]), len(inputs), len(columns)
    values, each = np.zeros((count, n)), np.arange(n)
    for _ in range(orders):
        mixed = inputs[others(random, n)]
        turns = np.argsort(random.uniform(size=(n, count)), axis=1)
        before = losses(mixed)
        advance()
        for turn in range(count):
            chosen = turns[:, turn]
            for place, part in enumerate(columns):
                rows = np.flatnonzero(chosen == place)
                mixed[rows, part] = inputs[rows, part]
            after = losses(mixed)
            values[chosen, each] += before - after
            before = after
            advance()
    return values / orders


def evaluations(count: int, orders: int) -> int:
    """How often `shapley_values` evaluates the losses."""
    return orders * (count + 1)
