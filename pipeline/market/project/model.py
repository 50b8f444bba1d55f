"""A model of the marketplace: linear terms, products of embeddings, and a small network over both."""

import keras
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from keras import layers

_HOUR_MS = 3_600_000


def category_hour(category: pa.Array, at_ms: npt.NDArray[np.int64]) -> pa.Array:
    """The category and the hour of day, such as `c7@13`. A transform: one value per row, null for a null category."""
    hour = pa.array(at_ms // _HOUR_MS % 24).cast(pa.string())
    return pc.binary_join_element_wise(category, hour, "@")


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """Logits [batch, 1] from one [batch, dim] tensor per field and one [batch, 1] per dense number."""
    single = [inputs[name] for name in ("user_category", "category_hour", "position", "price_class")]
    linear = layers.Add()([*single, inputs["user"][:, :1], inputs["item"][:, :1]])
    user, item, category = inputs["user"], inputs["item"], inputs["category"]
    products = [layers.Multiply()([user, item]), layers.Multiply()([user, category])]
    products += [layers.Multiply()([inputs["interests"], category]), layers.Multiply()([inputs["interests"], item])]
    deep = layers.Concatenate()([user, item, category, inputs["interests"], *products, inputs["price"]])
    deep = layers.Dense(32, activation="relu")(deep)
    deep = layers.Dense(1, bias_initializer=keras.initializers.Constant(-2.6))(deep)
    return keras.Model(inputs, layers.Add()([linear, deep]))
