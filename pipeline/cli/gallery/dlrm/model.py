"""DLRM: dense numbers through a network, rows of the categories, products of all pairs of both, then another network.

Naumov et al. 2019, "Deep Learning Recommendation Model for Personalization and Recommendation Systems"
(arXiv:1906.00091), section 2.
"""

from itertools import combinations

import keras
from keras import layers

NUMBERS = ("position",)
"""The `[[dense]]` inputs of springtide.toml; all others are fields of one dim."""


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """Bottom network, interaction, top network."""
    rows = [row for name, row in inputs.items() if name not in NUMBERS]
    numbers = layers.Concatenate()([inputs[name] for name in NUMBERS]) if len(NUMBERS) > 1 else inputs[NUMBERS[0]]
    bottom = layers.Dense(16, activation="relu")(numbers)
    bottom = layers.Dense(rows[0].shape[1], activation="relu")(bottom)

    products = [layers.Dot(axes=1)([one, other]) for one, other in combinations([bottom, *rows], 2)]
    top = layers.Concatenate()([bottom, *products])
    for width in (32, 16):
        top = layers.Dense(width, activation="relu")(top)
    # An initial bias near your click rate shortens the start of training: -2 is 12 %.
    return keras.Model(inputs, layers.Dense(1, bias_initializer=keras.initializers.Constant(-2.0))(top))
