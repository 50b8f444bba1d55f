"""Parts of a network: what they read, and that they predict the bits of the whole network."""

import gc
import weakref

import numpy as np
import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import ConfigError, InputError, ModelError
from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel
from pipeline.model.identity import serving_digest
from pipeline.model.loss.targets import trial_targets
from pipeline.model.network.weights import pack, unpack
from pipeline.publish.price.dense_weights import PublishedDense, TrainedWeights
from tests.support.synthetic.dense_walk import publish_dense

CASCADE = """
import keras
from keras import layers

def tower(inputs, width):
    x = layers.Concatenate()(inputs)
    x = layers.BatchNormalization()(layers.Dense(width, activation="relu")(x))
    return layers.Dropout(0.2, seed=3)(x)

def build(inputs):
    seen = layers.GlobalAveragePooling1D()(inputs["seen"], mask=inputs["seen_mask"])
    shared = layers.Dense(4, activation="tanh")(inputs["item"])
    coarse = tower([shared, inputs["price"]], 8)
    fine = tower([shared, inputs["user"], seen, inputs["place"]], 32)
    bought = layers.Dense(1)(tower([inputs["user"], inputs["price"]], 4))
    return keras.Model(inputs, {"click": layers.Dense(1)(fine), "coarse": layers.Dense(1)(coarse)[:, 0],
                                "bought": bought, "dwell": layers.Dense(1)(fine)})
"""
JOINED = """
import keras
def build(inputs):
    x = keras.layers.Concatenate()([v for n, v in inputs.items() if not n.startswith("seen")])
    return keras.Model(inputs, keras.layers.Dense(4)(x))
"""
NESTED = """
import keras

class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)
    def call(self, inputs):
        x = self.dense(inputs["item"])
        return {name: x[:, i] for i, name in enumerate(["click", "coarse", "bought", "dwell"])}

def build(inputs):
    return Own()
"""
PARTS = [
    {"name": "ranker", "labels": ["click", "dwell"]},
    {"name": "coarse", "labels": ["coarse"]},
    {"name": "sale", "labels": ["dwell", "bought"]},
]


def document_of(**sections):
    columns = {
        "id": "string", "user": "int", "item": "string", "seen": "strings", "price": "float", "place": "floats"
    }  # fmt: skip
    return {
        "events": {
            "key": ["id"],
            "impressions": {"columns": columns},
            "clicks": {"columns": {"id": "string", "bought": "float", "dwell": "float"}},
        },
        "labels": [
            {"name": "click"}, {"name": "bought", "given": "click", "conditional": "cvr"},
            {"name": "dwell", "loss": "poisson"}, {"name": "coarse", "target": "click"},
        ],
        "parts": PARTS,
        "tables": [{"name": "items", "dim": 3}],
        "fields": [
            {"name": "user", "columns": ["user"], "dim": 5},
            {"name": "item", "columns": ["item"], "table": "items"},
            {"name": "seen", "columns": ["seen"], "table": "items", "pooling": "none", "max_length": 3},
        ],
        "dense": [
            {"name": "price", "column": "price", "normalise": True},
            {"name": "place", "column": "place", "size": 2, "normalise": True},
        ],
        "model": {"batch_size": 32, "learning_rate": 0.1},
        **sections,
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A configuration and its network after some steps."""
    root = tmp_path_factory.mktemp("parts")
    (root / "model.py").write_text(CASCADE)
    config = parse_config(document_of())
    network = DenseModel(config, root)
    for _ in range(3):
        network.learn_scaling(np.random.default_rng(1).normal(3, 2, (32, 3)).astype(np.float32))
        network.step(random_inputs(network, 4), trial_targets(4, config.outputs))
    assert all(np.isfinite(array).all() for array in unpack(network.weights_bytes()).values())
    return config, root, network


def columns_of(part, network, inputs):
    """The columns of the whole matrix that a part reads."""
    places = [
        np.arange(network.layout.starts[name], network.layout.starts[name] + width)
        for name, width in zip(part.layout.names, part.layout.widths, strict=True)
    ]
    return np.ascontiguousarray(inputs[:, np.concatenate(places)])


def random_inputs(network, n):
    inputs = np.random.default_rng(n).normal(0, 2, (n, network.layout.columns)).astype(np.float32)
    start = network.layout.starts["seen"]
    inputs[:, start + 9 : start + 12] = np.arange(3) < np.random.default_rng(n).integers(1, 4, n)[:, None]
    return inputs


@pytest.mark.parametrize(
    ("name", "served", "read"),
    [
        ("coarse", ["coarse"], {"item", "price"}),
        ("ranker", ["click", "dwell"], {"user", "item", "seen", "place"}),
        ("sale", ["dwell", "bought", "cvr"], {"user", "item", "seen", "price", "place"}),
    ],
)
def test_a_part_reads_what_its_outputs_depend_on_and_predicts_their_bits(trained, name, served, read):
    config, _, network = trained
    part = network.part(config.part(name).labels)
    assert set(part.layout.names) == read
    part.load_serving(network.serving_bytes())
    places = [config.served_names.index(label) for label in served]
    for n in (*range(1, 20), 33, 64, 127, 128, 500):
        inputs = random_inputs(network, n)
        own = columns_of(part, network, inputs)
        network.scale(inputs)
        part.scale(own)
        assert part.predict(own).tobytes() == np.ascontiguousarray(network.predict(inputs)[:, places]).tobytes(), n


def test_a_part_holds_no_weights_of_other_outputs(trained):
    config, root, _ = trained
    network = DenseModel(config, root)
    kept = {len(v.shape): weakref.ref(v.value) for v in network._model.variables if v.shape == (4, 8)}
    dropped = [weakref.ref(v.value) for v in network._model.variables if 32 in v.shape]
    part, packed, inputs = network.part(["coarse"]), network.serving_bytes(), random_inputs(network, 4)
    own = columns_of(part, network, inputs)
    wanted = network.predict(inputs)[:, 3:4]
    del network
    gc.collect()
    assert len(dropped) > 4
    assert not any(variable() is not None for variable in dropped)
    assert all(variable() is not None for variable in kept.values())
    part.load_serving(packed)
    assert part.predict(own).tobytes() == np.ascontiguousarray(wanted).tobytes()


def test_a_part_predicts_with_rounded_weights_what_the_whole_network_predicts(trained):
    config, root, _ = trained
    network = DenseModel(config, root)
    weights = TrainedWeights(network.weights_bytes(), network.curvature)
    rounded = publish_dense(PublishedDense(b""), weights, 0.05).served
    whole, part = DenseModel(config, root), network.part(["coarse"])
    whole.load_serving(rounded)
    inputs = random_inputs(network, 6)
    wanted = np.ascontiguousarray(whole.predict(inputs)[:, 3:4])
    assert np.isfinite(wanted).all()
    assert wanted.tobytes() != np.ascontiguousarray(network.predict(inputs)[:, 3:4]).tobytes()
    own = part.serving_bytes_of(rounded)
    assert len(own) < len(rounded)
    for packed in (rounded, own):
        part.load_serving(packed)
        assert part.predict(columns_of(part, network, inputs)).tobytes() == wanted.tobytes()


def test_weights_of_another_model_are_refused_by_a_part(trained):
    _, _, network = trained
    part, arrays = network.part(["coarse"]), unpack(network.serving_bytes())
    before = part.predict(columns_of(part, network, random_inputs(network, 5)))
    other = {name: array for name, array in arrays.items() if array.shape != (4, 8) and not name.startswith("scaling")}
    with pytest.raises(ModelError, match="weights have nothing as"):
        part.load_serving(pack({name: array + 1 for name, array in other.items()}))
    assert part.predict(columns_of(part, network, random_inputs(network, 5))).tobytes() == before.tobytes()


def test_parts_change_no_digest(trained):
    config, root, network = trained
    plain = parse_config(document_of(parts=[]))
    assert serving_digest(config, FeaturePlan(config, root), network) == serving_digest(
        plain, FeaturePlan(plain, root), DenseModel(plain, root)
    )


def test_parts_of_a_network_that_computes_its_outputs_as_one_tensor_are_refused(tmp_path):
    (tmp_path / "model.py").write_text(JOINED)
    with pytest.raises(ModelError, match="of 4 labels as one tensor, so that they cannot be served apart"):
        DenseModel(parse_config(document_of()), tmp_path)
    DenseModel(parse_config(document_of(parts=[])), tmp_path)


def test_a_model_of_its_own_class_counts_as_one_layer(tmp_path):
    (tmp_path / "model.py").write_text(NESTED)
    network = DenseModel(parse_config(document_of()), tmp_path)
    part = network.part(["coarse"])
    assert set(part.layout.names) == {"user", "item", "seen", "price", "place"}
    inputs = random_inputs(network, 7)
    assert part.predict(inputs).tobytes() == np.ascontiguousarray(network.predict(inputs)[:, 3:4]).tobytes()


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"parts": [{"name": "coarse", "labels": ["likes"]}]},
            "part coarse has label likes, which does not exist. known: cl",
        ),
        ({"parts": [{"name": "coarse", "labels": []}]}, "parts.0.labels: "),
        ({"parts": [{"name": "a", "labels": ["click"]}] * 2}, "part a is declared twice"),
        ({"parts": [{"name": "a", "labels": ["click", "click"]}]}, "part a: label click is declared twice"),
        ({"parts": [{"name": "A b", "labels": ["click"]}]}, "parts.0.name: "),
        ({"serving": {"part": "fine"}}, "serving.part fine does not exist. known: ranker, coarse, sale"),
        ({"serving": {"part": "fine"}, "parts": []}, "serving.part fine does not exist. hint: declare it in [[parts]]"),
    ],
)
def test_parts_that_cannot_be_served_are_refused(sections, problem):
    with pytest.raises(ConfigError) as caught:
        parse_config(document_of(**sections))
    assert problem in str(caught.value)


def test_an_unknown_part_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="known: ranker, coarse, sale"):
        parse_config(document_of()).part("fine")
    with pytest.raises(InputError, match="part fine does not exist"):
        parse_config(document_of(parts=[])).part("fine")
