"""ESMM: conversions after a click, learned over all impressions.

Ma et al. 2018, "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate"
(SIGIR), figure 2: two towers over the same rows. In springtide.toml, ctcvr is given ctr: springtide multiplies both
probabilities, and the losses are those of ctr and of the product.
"""

import keras
from keras import layers


def tower(x: keras.KerasTensor) -> keras.KerasTensor:
    """A logit."""
    for width in (32, 16):
        x = layers.Dense(width, activation="relu")(x)
    # An initial bias near your click rate shortens the start of training: -2 is 12 %.
    return layers.Dense(1, bias_initializer=keras.initializers.Constant(-2.0))(x)


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """The logit of a click, and that of a purchase after a click."""
    x = layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs, {"ctr": tower(x), "ctcvr": tower(x)})
