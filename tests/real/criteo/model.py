"""Wide and deep: one weight for each value and each pair of values, and a small network over rows of eight.

Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems" (DLRS).
"""

import keras
from keras import layers


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """The sum of all weights and the network, with a bias that starts at the click rate of 36 %."""
    linear = layers.Add()([x for x in inputs.values() if x.shape[-1] == 1])
    deep = layers.Concatenate()([x for x in inputs.values() if x.shape[-1] > 1])
    deep = layers.Dense(64, activation="relu")(deep)
    deep = layers.Dense(1, bias_initializer=keras.initializers.Constant(-0.57))(deep)
    return keras.Model(inputs, layers.Add()([linear, deep]))
