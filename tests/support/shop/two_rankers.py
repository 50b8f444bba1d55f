"""A fine and a coarse ranker, which reads one field of the fine one's."""

CASCADE = """
import keras
from keras import layers

def build(inputs):
    fine = layers.Dense(16, activation="relu")(layers.Concatenate()(list(inputs.values())))
    coarse = layers.Dense(4, activation="relu")(inputs["item"])
    return keras.Model(inputs, {"click": layers.Dense(1)(fine), "coarse": layers.Dense(1)(coarse)})
"""
LABELS = [{"name": "click"}, {"name": "coarse", "target": "click"}]
