"""The names that Keras gives unnamed layers decide the order of operations: a model has those of a new process."""

import threading

from tests.model.test_model import NEGATIVE, POSITIVE, inputs_of, model_of, targets

PRODUCTS = """
import keras
from keras import layers
def build(inputs):
    item, user, price = inputs["item"], inputs["user"][:, :2], inputs["price"]
    products = [layers.Multiply()(pair) for pair in ([item, user], [item, price], [user, price], [user, item])]
    x = layers.Concatenate()([item, user, *products, price])
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dense(16, "relu")(x)))
"""


def test_gradients_do_not_depend_on_how_many_models_the_process_has_built(tmp_path):
    """TensorFlow orders by name, and `multiply_10` is before `multiply_9`: sums were rounded in another order."""

    def gradients() -> None:
        for _ in range(5):
            model = model_of(tmp_path, PRODUCTS, batch_size=64)
            found.append(model.step(inputs_of(45), targets(POSITIVE, *[NEGATIVE] * 44)).gradient.tobytes())

    found: list[bytes] = []
    thread = threading.Thread(target=gradients)  # Keras counts names by thread
    thread.start()
    thread.join()
    assert len(found) == 5
    assert len(set(found)) == 1
