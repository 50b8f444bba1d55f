"""Logistic regression: one weight for each value of each field, and a bias.

McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches" (KDD): the fields learn by FTRL-proximal, and L1
keeps the weights of rare values at zero.
"""

import keras
from keras import layers, ops


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """The logit is the sum of the weights of a sample's values, and the bias."""
    total = layers.Add()(list(inputs.values()))
    # A layer that reads zeros is its bias alone. -2 is a click rate of 12 %.
    bias = layers.Dense(1, bias_initializer=keras.initializers.Constant(-2.0))(ops.zeros_like(total))
    return keras.Model(inputs, layers.Add()([total, bias]))
