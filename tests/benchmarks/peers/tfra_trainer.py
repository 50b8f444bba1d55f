"""TensorFlow Recommenders Addons as a trainer: dynamic embeddings of 16, MLP 256-128, Adagrad.

26 fields in one embedding, or with `--tables N` in N of them; or with `--history N` an item and a history of N items in
one embedding, read by attention. Prints samples and looked-up rows per second of wall and of processor time over the
steps after the warm-up.
"""

import argparse

import tensorflow as tf
from tensorflow_recommenders_addons import dynamic_embedding
from zipf import BATCH, DIM, FIELDS, LAYERS, VALUES, batches, report

WARM_UP = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tables", type=int, help="number of embeddings that the fields share")
    parser.add_argument("--history", type=int, help="items of a history, in place of the fields")
    chosen = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(chosen.threads)
    tf.config.threading.set_inter_op_parallelism_threads(chosen.threads)
    tables = chosen.tables or 1
    columns = 1 + chosen.history if chosen.history else FIELDS
    small = tf.keras.initializers.RandomNormal(0, 0.01, seed=1)
    rows = [
        dynamic_embedding.keras.layers.BasicEmbedding(
            embedding_size=DIM,
            key_dtype=tf.int64,
            value_dtype=tf.float32,
            initializer=small,
            init_capacity=2 * VALUES,
            name=f"rows{number}",
            devices=["/CPU:0"],
        )
        for number in range(tables)
    ]
    width = 2 * DIM if chosen.history else FIELDS * DIM
    dense = tf.keras.Sequential([*(tf.keras.layers.Dense(units, "relu") for units in LAYERS), tf.keras.layers.Dense(1)])
    dense.build((None, width))
    optimizer = dynamic_embedding.DynamicEmbeddingOptimizer(tf.keras.optimizers.legacy.Adagrad(0.01))

    def read(keys: tf.Tensor) -> tf.Tensor:
        """[BATCH, width] what the network reads. Column c is in table c % tables."""
        if chosen.tables:
            found = [layer(keys[:, number::tables]) for number, layer in enumerate(rows)]
            return tf.reshape(tf.concat(found, axis=1), [BATCH, width])
        found = rows[0](keys)
        if not chosen.history:
            return tf.reshape(found, [BATCH, width])
        item, history = found[:, 0], found[:, 1:]
        shares = tf.nn.softmax(tf.reduce_sum(history * item[:, None, :], axis=2) / 4.0, axis=1)
        return tf.concat([item, tf.reduce_sum(history * shares[:, :, None], axis=1)], axis=1)

    @tf.function
    def step(keys: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = dense(read(keys))[:, 0]
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
        variables = [each for layer in rows for each in layer.trainable_variables] + dense.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    made = batches(WARM_UP + chosen.steps, columns=columns, tables=1 if chosen.history else chosen.tables or FIELDS)
    ready = [(tf.constant(keys), tf.constant(labels)) for keys, labels in made]
    report(lambda keys, labels: float(step(keys, labels)), ready, WARM_UP, columns)


if __name__ == "__main__":
    main()
