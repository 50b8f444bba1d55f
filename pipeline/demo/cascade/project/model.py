"""Three stages of one model, learned in one step from the same rows: two towers, a coarse and a fine ranker.

The towers find some hundred of all items, the coarse ranker keeps some dozen of them, and the fine one orders these.
Each stage reads more of a pair of user and item than the one before, and sees fewer pairs.
"""

import keras
from keras import layers

DIM = 16


def logit(x: keras.KerasTensor) -> keras.KerasTensor:
    """An initial bias near the click rate shortens the start of training: -2 is 12 %."""
    return layers.Dense(1, bias_initializer=keras.initializers.Constant(-2.0))(x)


def tower(rows: list[keras.KerasTensor]) -> keras.KerasTensor:
    """[batch, DIM]; springtide.toml divides it by its length."""
    joined = layers.Concatenate()(rows)
    return layers.Dense(DIM)(layers.Concatenate()([joined, layers.Dense(32, activation="relu")(joined)]))


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """Vectors `user` and `item`, and the logits `coarse` and `click`."""
    of_user = [inputs["user"], inputs["interests"]]
    of_item = [inputs["item"], inputs["category"]]
    user, item = tower(of_user), tower(of_item)

    halves = [layers.Dense(8)(layers.Concatenate()(side)) for side in (of_user, of_item)]
    coarse = layers.Concatenate()([*halves, layers.Multiply()(halves)])

    fine = layers.Concatenate()([*inputs.values(), layers.Multiply()([inputs["user"], inputs["item"]])])
    for width in (32, 16):
        fine = layers.Dense(width, activation="relu")(fine)
    return keras.Model(inputs, {"click": logit(fine), "coarse": logit(coarse), "user": user, "item": item})
