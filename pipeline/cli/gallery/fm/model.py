"""A factorization machine: a weight and a vector for each value; pairs interact by the product of their vectors.

Rendle 2010, "Factorization Machines" (ICDM), equation 1. The sum over all pairs costs linear time (lemma 3.1): it is
half of the square of the sum less the sum of the squares.
"""

import keras
from keras import layers, ops


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """The first weight of a row is linear, the others are its vector."""
    linear = layers.Add()([row[:, :1] for row in inputs.values()])
    vectors = ops.stack([row[:, 1:] for row in inputs.values()], axis=1)  # [batch, fields, 8]
    pairs = ops.square(ops.sum(vectors, axis=1)) - ops.sum(ops.square(vectors), axis=1)
    features = layers.Concatenate()([linear, 0.5 * ops.sum(pairs, axis=1, keepdims=True)])
    # Begins as linear + pairs - 2, which is a click rate of 12 %.
    bias = keras.initializers.Constant(-2.0)
    return keras.Model(inputs, layers.Dense(1, kernel_initializer="ones", bias_initializer=bias)(features))
