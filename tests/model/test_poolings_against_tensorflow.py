"""Every pooling learns as TensorFlow's embeddings do: the same model trained both ways has the same weights."""

import copy

import numpy as np
import pyarrow as pa
import pytest

from pipeline.model.network.weights import unpack
from pipeline.model.runtime import keras, tf
from pipeline.model.training.step import INITIAL_ACCUMULATOR
from tests.support.shop.shop import WRITTEN, make_project, make_samples
from tests.support.world.in_memory_trainer import InMemoryTrainer

DIM, LENGTH, BATCH, BATCHES, RATE = 4, 3, 32, 6, 0.5
WORDS = [f"t{i}" for i in range(7)]
LINEAR = ("sum", "mean", "sqrtn")

MODEL = """
import keras
from keras import layers

def build(inputs):
    parts = [inputs[name] for name in ("sum", "mean", "sqrtn", "max", "w_sum", "w_mean", "w_sqrtn")]
    history = layers.Multiply()([inputs["none"], layers.Reshape((3, 1))(inputs["none_mask"])])
    x = layers.Concatenate()([*parts, layers.Flatten()(history)])
    return keras.Model(inputs, layers.Dense(1, kernel_initializer="ones")(x))
"""


def document() -> dict:
    sgd = {"dim": DIM, "columns": ["tags"], "init_scale": 0.5, "optimizer": {"kind": "sgd", "learning_rate": 0.05}}
    fields = [sgd | {"name": name, "pooling": name} for name in (*LINEAR, "max")]
    fields += [sgd | {"name": f"w_{name}", "pooling": name, "weights": "strengths"} for name in LINEAR]
    fields.append(sgd | {"name": "none", "pooling": "none", "max_length": LENGTH})
    changed = copy.deepcopy(WRITTEN) | {"fields": fields}
    changed["events"]["impressions"]["columns"]["strengths"] = "floats"
    return changed | {"model": {"batch_size": BATCH, "learning_rate": RATE}}


def samples() -> pa.RecordBatch:
    """Lists of none to five words, some of them twice; the last list of a batch is not empty."""
    random = np.random.default_rng(3)
    lengths = random.integers(0, 6, BATCH * BATCHES)
    lengths[BATCH - 1 :: BATCH] = 1
    tags = [random.choice(WORDS, length).tolist() for length in lengths]
    strengths = [random.uniform(0.25, 2, length).round(2).tolist() for length in lengths]
    made = make_samples(4, BATCH * BATCHES)
    made = made.set_column(made.schema.get_field_index("tags"), "tags", pa.array(tags, pa.list_(pa.string())))
    return made.append_column("strengths", pa.array(strengths, pa.list_(pa.float64())))


class Reference:
    """The same model of TensorFlow's embeddings, trained by the equations of SGD and Adagrad."""

    def __init__(self, rows: dict[str, np.ndarray]) -> None:
        """`rows`: the weights of the words by field, [words, DIM]."""
        self.layers = {name: keras.layers.Embedding(len(WORDS), DIM) for name in rows}
        for name, layer in self.layers.items():
            layer.build(None)
            layer.set_weights([rows[name]])
        width = (len(rows) - 1 + LENGTH) * DIM
        self.dense = [tf.Variable(tf.ones((width, 1))), tf.Variable(tf.zeros(1))]
        self.accumulators = [tf.fill(v.shape, INITIAL_ACCUMULATOR) for v in self.dense]

    def step(self, batch: pa.RecordBatch) -> None:
        tables = [layer.embeddings.value for layer in self.layers.values()]
        labels = tf.constant(batch.column("label").to_numpy()[:, None])
        with tf.GradientTape() as tape:
            parts = [self._pooled(name, batch) for name in self.layers]
            logits = tf.concat(parts, axis=1) @ self.dense[0] + self.dense[1]
            loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
        gradients = [tf.convert_to_tensor(each) for each in tape.gradient(loss, [*tables, *self.dense])]
        for table, gradient in zip(tables, gradients, strict=False):
            table.assign_sub(0.05 * gradient)
        for i, gradient in enumerate(gradients[len(tables) :]):
            mean = gradient / BATCH
            self.accumulators[i] += mean * mean
            self.dense[i].assign_sub(RATE * mean / tf.sqrt(self.accumulators[i]))

    def _pooled(self, name: str, batch: pa.RecordBatch) -> tf.Tensor:
        lists = [[WORDS.index(word) for word in words] for words in batch.column("tags").to_pylist()]
        layer, kind = self.layers[name], name.removeprefix("w_")
        if kind in LINEAR:
            ids = tf.ragged.constant(lists, dtype=tf.int64).to_sparse()
            strengths = tf.ragged.constant(batch.column("strengths").to_pylist(), dtype=tf.float32).to_sparse()
            weights = strengths if name.startswith("w_") else None
            return tf.nn.embedding_lookup_sparse(layer.embeddings.value, ids, weights, combiner=kind)
        lists = [words[-LENGTH:] for words in lists] if kind == "none" else lists
        padded = tf.ragged.constant(lists, dtype=tf.int64).to_tensor(shape=(BATCH, LENGTH if kind == "none" else 5))
        real = tf.sequence_mask([len(words) for words in lists], padded.shape[1])[:, :, None]
        if kind == "none":
            return tf.reshape(tf.where(real, layer(padded), 0.0), (BATCH, -1))
        largest = tf.reduce_max(tf.where(real, layer(padded), -np.inf), axis=1)
        return tf.where(tf.reduce_any(real, axis=1), largest, 0.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[InMemoryTrainer, Reference]:
    ours = InMemoryTrainer(make_project(tmp_path_factory.mktemp("poolings"), document(), MODEL))
    theirs = Reference({name: initial_rows(ours, name) for name in ours.tables.by_name})
    stream = samples()
    ours.learn(stream)
    for first in range(0, stream.num_rows, BATCH):
        theirs.step(stream.slice(first, BATCH))
    return ours, theirs


def word_keys(trainer: InMemoryTrainer, name: str) -> np.ndarray:
    return np.array([trainer.plan.key_of(name, {"tags": word}) for word in WORDS], np.uint64)


def initial_rows(trainer: InMemoryTrainer, name: str) -> np.ndarray:
    """[words, DIM] what a row begins with: a function of its key."""
    keys = word_keys(trainer, name)
    fresh = type(trainer.tables)(trainer.project.config).by_name[name].table
    fresh.admit(keys, 0)
    return np.asarray(fresh.lookup(keys))


@pytest.mark.parametrize("name", [*LINEAR, "max", *(f"w_{kind}" for kind in LINEAR), "none"])
def test_rows_are_those_of_tensorflow(trained, name):
    ours, theirs = trained
    learned, before = ours.lookup(name, word_keys(ours, name)), initial_rows(ours, name)
    assert (np.abs(learned - before).max(axis=1) > 1e-3).all()  # every row has learned
    np.testing.assert_allclose(learned, theirs.layers[name].get_weights()[0], rtol=2e-4, atol=2e-6)


def test_the_dense_weights_are_those_of_tensorflow(trained):
    ours, theirs = trained
    for name, array in unpack(ours.model.weights_bytes()).items():
        if name.startswith("variable/"):
            wanted = theirs.dense[0 if "kernel" in name else 1].numpy()
            np.testing.assert_allclose(array, wanted, rtol=2e-4, atol=2e-6)
