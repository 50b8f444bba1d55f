"""The peer of every figure: only the dense part in TensorFlow, on the same machine in the same run.

26 fields × 16 columns of precomputed inputs, MLP 256-128, batch 2,048, Adagrad inside `tf.function`; no rows, no log,
no join. It is the upper bound for a trainer whose embeddings cost nothing.
"""

import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.model.runtime import tf

FIELDS, DIM, BATCH, LAYERS = 26, 16, 2048, (256, 128)
_PARTS = 5


def dense_part_alone(seconds: float) -> float:
    """Samples per second of forward, backward and Adagrad over the dense network: median of five parts."""
    step = _compiled_step()
    rates = []
    for _ in range(_PARTS):
        started, steps = time.perf_counter(), 0
        while time.perf_counter() - started < seconds / _PARTS:
            step()
            steps += 1
        rates.append(steps * BATCH / (time.perf_counter() - started))
    return float(np.median(rates))


@cache
def _compiled_step() -> Callable[[], Any]:
    """One step, warmed up; cached for the life of the process."""
    random = np.random.default_rng(1)
    sizes = (FIELDS * DIM, *LAYERS, 1)
    initial = tf.keras.initializers.GlorotUniform(seed=1)
    weights = [tf.Variable(initial(shape)) for shape in pairwise(sizes)]
    biases = [tf.Variable(tf.zeros(size)) for size in sizes[1:]]
    variables = weights + biases
    sums = [tf.Variable(tf.fill(v.shape, 0.1)) for v in variables]

    @tf.function
    def step(inputs: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            hidden = inputs
            for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                hidden = hidden @ weight + bias
                hidden = tf.nn.relu(hidden) if i < len(LAYERS) else hidden
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, hidden[:, 0]))
        gradient, *rest = tape.gradient(loss, [inputs, *variables])
        for variable, total, slope in zip(variables, sums, rest, strict=True):
            total.assign_add(slope * slope)
            variable.assign_sub(0.02 * slope / (tf.sqrt(total) + 1e-7))
        return tf.reduce_sum(gradient)

    inputs = tf.constant(random.standard_normal((BATCH, FIELDS * DIM)), tf.float32)
    labels = tf.constant(random.random(BATCH) < 0.1, tf.float32)
    for _ in range(5):
        step(inputs, labels).numpy()
    return lambda: step(inputs, labels).numpy()
