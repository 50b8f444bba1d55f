"""Two towers: a vector for the user and one for the item, so that the items of a user are found by their product.

Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations" (RecSys): each click is
classified among the items of its batch, corrected for how frequent they are. In springtide.toml each batch also
draws items uniformly: Yang et al. 2020, "Mixed Negative Sampling for Learning Two-tower Neural Networks in
Recommendations" (WWW companion). Either tower is a part that a replica serves alone: `springtide replica --part user`.
"""

import keras
from keras import layers

DIM = 16


def tower(rows: list[keras.KerasTensor]) -> keras.KerasTensor:
    """[batch, DIM]; springtide.toml divides it by its length."""
    joined = layers.Concatenate()(rows) if len(rows) > 1 else rows[0]
    hidden = layers.Dense(32, activation="relu")(joined)
    return layers.Dense(DIM)(layers.Concatenate()([joined, hidden]))


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """The two vectors by name. What only one side knows goes into its tower: no position, it is not known yet."""
    user = tower([inputs["user"], inputs["history"], inputs["hour"]])
    item = tower([inputs["item"]])
    return keras.Model(inputs, {"user": user, "item": item})
