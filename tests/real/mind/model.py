"""Wide and deep: a logistic regression over one weight per value, and a small network over rows of four.

Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems" (DLRS).
"""

import keras
from keras import layers


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """The sum of all weights and the network, with a bias that starts at the click rate of 4 %."""
    linear = layers.Add()([x for x in inputs.values() if x.shape[-1] == 1])
    deep = layers.Concatenate()([x for x in inputs.values() if x.shape[-1] > 1])
    for width in (32, 16):
        deep = layers.Dense(width, activation="relu")(deep)
    deep = layers.Dense(1, bias_initializer=keras.initializers.Constant(-3.2))(deep)
    return keras.Model(inputs, layers.Add()([linear, deep]))
