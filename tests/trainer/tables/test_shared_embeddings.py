"""A table that two fields read, against TensorFlow: the same model with one `Embedding` layer for both inputs."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration.model.tables import tables_of
from pipeline.features.plan import FeaturePlan
from pipeline.logs.open import open_log
from pipeline.model.dense import DenseModel
from pipeline.model.network.weights import unpack
from pipeline.model.runtime import keras, tf
from pipeline.trainer.tables.table import Table, row_dtype, state_floats
from pipeline.versions.store.version_store import VersionStore
from tests.support.shop.shop import WRITTEN, append_samples, make_project, make_samples, train

BATCH, BATCHES, ITEMS, DIM = 32, 6, 30, 4
NO_ITEM = ITEMS
"""The number that fills up lists in the model of TensorFlow."""
MODEL = """
import keras

def build(inputs):
    x = keras.layers.Concatenate()([inputs["item"], inputs["seen"]])
    return keras.Model(inputs, keras.layers.Dense(1)(x))
"""
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "adagrad": lambda: keras.optimizers.Adagrad(0.05, initial_accumulator_value=0.1, epsilon=1e-7),
}


def samples_of() -> tuple[pa.RecordBatch, np.ndarray, np.ndarray]:
    """Samples, and the same items as numbers: [n] and [n, 4] filled up."""
    samples, random = make_samples(1, BATCH * BATCHES), np.random.default_rng(1)
    lists = [random.integers(0, ITEMS, random.integers(0, 5)).tolist() for _ in range(samples.num_rows)]
    column = pa.array([[f"i{i}" for i in each] for each in lists], pa.list_(pa.string()))
    samples = samples.set_column(samples.schema.get_field_index("tags"), "tags", column)
    items = np.array([int(item[1:]) for item in samples["item"].to_pylist()])
    return samples, items, np.array([[*each, *[NO_ITEM] * (4 - len(each))] for each in lists])


def trained_by_tensorflow(first_rows: np.ndarray, first_dense: dict[str, np.ndarray], kind: str, pooling: str) -> Any:
    """(the layer's weights, kernel) after the batches: the rows learn from the summed loss, the rest from its mean."""
    embedding, layer = keras.layers.Embedding(ITEMS + 1, DIM), keras.layers.Dense(1)
    samples, items, lists = samples_of()
    embedding.build()
    layer.build((None, 2 * DIM))
    embedding.set_weights([np.vstack([first_rows, np.zeros(DIM, np.float32)])])
    layer.set_weights([first_dense["kernel"], first_dense["bias"]])
    rows_step, dense_step = OPTIMIZERS[kind](), keras.optimizers.Adagrad(0.05, 0.1, epsilon=0.0)
    clicked = samples["label"].to_numpy()
    for start in range(0, len(items), BATCH):
        part = slice(start, start + BATCH)
        with tf.GradientTape() as tape:
            known = tf.cast(lists[part] != NO_ITEM, tf.float32)[..., None]
            seen = tf.reduce_sum(embedding(lists[part]) * known, axis=1)
            if pooling == "mean":
                seen /= tf.maximum(tf.reduce_sum(known, axis=1), 1.0)
            logits = layer(tf.concat([embedding(items[part]), seen], axis=1))[:, 0]
            loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(clicked[part], logits))
        rows, *dense = tape.gradient(loss, [embedding.embeddings.value, *(v.value for v in layer.trainable_variables)])
        # One step by the sum over all occurrences, as for any variable.
        rows_step.apply([tf.convert_to_tensor(rows)], embedding.trainable_variables)
        dense_step.apply([gradient / BATCH for gradient in dense], layer.trainable_variables)
    return embedding.get_weights()[0][:ITEMS], layer.get_weights()[0]


@pytest.mark.parametrize(("kind", "pooling"), [("sgd", "sum"), ("adagrad", "mean")])
def test_two_fields_of_a_table_train_it_as_an_embedding_layer_that_two_inputs_share(tmp_path, kind, pooling):
    fields = [
        {"name": "item", "columns": ["item"], "table": "goods"},
        {"name": "seen", "columns": ["tags"], "table": "goods", "pooling": pooling},
    ]
    goods = {"name": "goods", "dim": DIM, "optimizer": {"kind": kind, "learning_rate": 0.05}}
    written = {**WRITTEN, "tables": [goods], "fields": fields, "model": {"batch_size": BATCH, "learning_rate": 0.05}}
    project = make_project(tmp_path, written, MODEL)
    table, plan = tables_of(project.config.fields)["goods"], FeaturePlan(project.config, project.root)
    keys = np.array([plan.key_of("item", {"item": f"i{i}"}) for i in range(ITEMS)], np.uint64)
    fresh = Table(DIM, table.optimizer, project.config.model.seed, table.init_scale, 1.0)
    fresh.admit(keys, 0)
    log = open_log(project)
    append_samples(log, project, samples_of()[0])
    train(project, log)
    store = VersionStore(project)
    commit = store.restore(store.current(0))
    change, dtype = commit.fields["goods"], row_dtype(DIM, state_floats(table.optimizer, DIM))
    rows = dict(zip(change.keys.tolist(), change.rows.view(dtype).reshape(-1)["weights"], strict=True))
    first = variables(DenseModel(project.config, project.root).weights_bytes())
    wanted, kernel = trained_by_tensorflow(fresh.lookup(keys), first, kind, pooling)
    got = np.array([rows[key] for key in keys.tolist()])
    assert np.abs(got - fresh.lookup(keys)).max() > 0.01
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variables(commit.dense)["kernel"], kernel, rtol=1e-4, atol=1e-6)


def variables(packed: bytes) -> dict[str, np.ndarray]:
    return {n.rpartition("/")[2]: a for n, a in unpack(packed).items() if n.startswith("variable/")}
