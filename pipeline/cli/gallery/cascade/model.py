"""Cascade: a coarse ranker for thousands of candidates beside the fine one, learned in one step from the same rows.

Wang et al. 2020, "COLD: Towards the Next Generation of Pre-Ranking System" (DLP-KDD): the coarse ranker learns clicks
with the data of the fine one. In springtide.toml the fine ranker also teaches it, by soft targets (Hinton et al. 2015;
Tang and Wang 2018, "Ranking Distillation", KDD), and it is a part that a replica serves alone.
"""

import keras
from keras import layers


def logit(x: keras.KerasTensor) -> keras.KerasTensor:
    """An initial bias near your click rate shortens the start of training: -2 is 12 %."""
    return layers.Dense(1, bias_initializer=keras.initializers.Constant(-2.0))(x)


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """The fine logit of a click, of all inputs, and the coarse one, of user and item: a position is not known yet."""
    fine = layers.Concatenate()(list(inputs.values()))
    for width in (32, 16):
        fine = layers.Dense(width, activation="relu")(fine)

    # Both rankers move the rows of user and item. With keras.ops.stop_gradient(inputs[name]) only the fine one does.
    user, item = (layers.Dense(8)(inputs[name]) for name in ("user", "item"))
    coarse = layers.Concatenate()([user, item, layers.Multiply()([user, item])])
    return keras.Model(inputs, {"click": logit(fine), "coarse": logit(coarse)})
