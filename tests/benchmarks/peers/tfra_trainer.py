"""TensorFlow Recommenders Addons as a trainer: 26 fields x 16 in one dynamic embedding, MLP 256-128, Adagrad.

Prints samples per second of wall and of processor time over the steps after the warm-up.
"""

import argparse
import json
import time

import numpy as np
import tensorflow as tf
from tensorflow_recommenders_addons import dynamic_embedding
from zipf import BATCH, DIM, FIELDS, LAYERS, VALUES, batches

WARM_UP = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(chosen.threads)
    tf.config.threading.set_inter_op_parallelism_threads(chosen.threads)
    small = tf.keras.initializers.RandomNormal(0, 0.01, seed=1)
    rows = dynamic_embedding.keras.layers.BasicEmbedding(
        embedding_size=DIM,
        key_dtype=tf.int64,
        value_dtype=tf.float32,
        initializer=small,
        init_capacity=2 * VALUES,
        name="rows",
        devices=["/CPU:0"],
    )
    dense = tf.keras.Sequential([*(tf.keras.layers.Dense(units, "relu") for units in LAYERS), tf.keras.layers.Dense(1)])
    dense.build((None, FIELDS * DIM))
    optimizer = dynamic_embedding.DynamicEmbeddingOptimizer(tf.keras.optimizers.legacy.Adagrad(0.01))

    @tf.function
    def step(keys: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = dense(tf.reshape(rows(keys), [BATCH, FIELDS * DIM]))[:, 0]
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
        variables = rows.trainable_variables + dense.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    ready = [(tf.constant(keys), tf.constant(labels)) for keys, labels in batches(WARM_UP + chosen.steps)]
    for keys, labels in ready[:WARM_UP]:
        step(keys, labels)
    began_s, spent_s = time.perf_counter(), time.process_time()
    losses = [float(step(keys, labels)) for keys, labels in ready[WARM_UP:]]
    taken_s, spent_s = time.perf_counter() - began_s, time.process_time() - spent_s
    assert np.isfinite(losses).all()
    samples = chosen.steps * BATCH
    rates = {"samples_per_s": samples / taken_s, "samples_per_core_s": samples / spent_s}
    print(json.dumps({**rates, "loss": losses[-1]}))


if __name__ == "__main__":
    main()
