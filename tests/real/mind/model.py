"""A logistic regression over one weight per value."""

import keras


def build(inputs: dict[str, keras.KerasTensor]) -> keras.Model:
    """Sum of all weights plus a bias that starts at the click rate of 4 %."""
    bias = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(-3.2))
    linear = keras.layers.Add()(list(inputs.values()))
    return keras.Model(inputs, keras.layers.Add()([linear, bias(linear)]))
