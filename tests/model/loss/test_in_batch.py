"""Softmax over the items of a batch: against NumPy, in compiled and short batches, and what is refused."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from pipeline.configuration.config import parse_config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import ConfigError, ModelError
from pipeline.model.loss.batch_items import BatchItems
from pipeline.model.loss.in_batch import in_batch_losses
from pipeline.model.loss.targets import Targets, targets_of
from tests.model.loss.test_losses import document_of, model_of, samples_of
from tests.model.test_model import inputs_of

LABEL = {"name": "chosen", "loss": "in_batch", "towers": {"item_column": "item"}}
PAIR = """
import keras
def build(inputs):
    item = keras.layers.Concatenate()([inputs["item"], inputs["price"]])
    return keras.Model(inputs, {"user": keras.layers.Dense(3)(inputs["user"]), "item": keras.layers.Dense(3)(item)})
"""
DRAWN = 2


def label_of(**towers) -> dict:
    return LABEL | {"towers": LABEL["towers"] | towers}


def expected(scores: np.ndarray, items: list, log_q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses and ranks [n] of scores [n, n + m], a sample at a time."""
    losses, ranks = [], []
    for i, row in enumerate(scores):
        z = row - log_q
        others = [j for j in range(len(items)) if j != i and items[j] not in (items[i], None)]
        losses.append(np.logaddexp.reduce(z[[i, *others]]) - z[i])
        best = {items[j]: row[j] for j in reversed(others)}
        ranks.append(sum(score >= row[i] for score in best.values()))
    return np.array(losses), np.array(ranks)


def test_losses_gradients_and_ranks_are_those_of_the_softmax_without_accidental_hits():
    random = np.random.default_rng(1)
    queries, vectors = random.normal(size=(4, 3)).astype(np.float32), random.normal(size=(7, 3)).astype(np.float32)
    items, log_q = ["a", "b", "a", "c", "b", "d", None], random.normal(size=7).astype(np.float32)
    vectors[4] = vectors[1]
    keys = np.array([0 if item is None else ord(item) for item in items], np.uint64)
    found = BatchItems.of(keys, log_q, np.array([item is not None for item in items]))
    given = tf.Variable(queries)
    with tf.GradientTape() as tape:
        losses, ranks = in_batch_losses(given, tf.constant(vectors), 0.5, *vars(found).values())
    wanted, ranked = expected(queries @ vectors.T / 0.5, items, log_q)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5, atol=1e-6)
    assert ranks.numpy().tolist() == ranked.tolist()
    moved = queries.copy()
    moved[2, 1] += 1e-3
    rise = (expected(moved @ vectors.T / 0.5, items, log_q)[0] - wanted).sum() / 1e-3
    assert float(tape.gradient(losses, given)[2, 1]) == pytest.approx(rise, rel=2e-2)


def targets(values: list, items: list, log_q: list | None = None, kinds: list | None = None) -> Targets:
    samples = samples_of(kinds or ["positive"] * len(values), chosen=values)
    found = targets_of(samples, [LabelConfig(**LABEL)])
    keys = np.array([ord(item) for item in items], np.uint64)
    batch_items = BatchItems.of(keys, np.float32(log_q or [0] * len(items)))
    return Targets(**vars(found) | {"batch_items": batch_items})


@pytest.mark.parametrize("rows", [4, 3])
@pytest.mark.parametrize("drawn", [0, DRAWN])
def test_step_learns_positives_among_items_of_the_batch_and_drawn_ones(tmp_path, rows, drawn):
    label = label_of(negatives=drawn, reservoir=9) if drawn else LABEL
    model, x = model_of(tmp_path, label, source=PAIR), inputs_of(rows + drawn)
    x[rows:, :3] = 0
    items, log_q = ["q", "r", "q", "s"][:rows] + ["t", "r"][:drawn], [0.5, -1.0, 0.5, 0.0, 2.0, -1.0][: rows + drawn]
    outputs = model.predict(x).astype(np.float64)
    user, item = outputs[:rows, 1:4], outputs[:, 4:]
    wanted, ranked = expected(user @ item.T, items, np.array(log_q))
    y = np.array([1.0, 0.0, 2.0, 0.0])[:rows]
    result = model.step(x, targets(y.tolist(), items, log_q))
    np.testing.assert_allclose(result.losses[:, 0], y * wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.logits[:, 0], (user * item[:rows]).sum(axis=1), rtol=1e-4, atol=1e-6)
    assert result.ranks.tolist() == ranked.tolist()
    assert result.gradient.shape == x.shape
    assert (np.abs(result.gradient[rows:, 3:]).sum(axis=1) > 0).all()
    assert (result.gradient[rows:, :3] == 0).all()


def test_two_models_learn_the_same_bytes_and_one_can_be_tried(tmp_path):
    first, second = (model_of(tmp_path, label_of(normalise=True, negatives=3), source=PAIR) for _ in range(2))
    x = inputs_of(4 + 3)
    for model in (first, second):
        for _ in range(3):
            model.step(x, targets([1.0, 0.0, 1.0, 1.0], list("qrstuvw")))
    assert first.weights_bytes() == second.weights_bytes()
    second.try_step()
    assert first.weights_bytes() != second.weights_bytes()


def test_late_event_is_a_positive_like_another_and_an_impression_without_one_is_not_learned():
    found = targets([1.0, 0.0, 2.0, None], list("abcd"), None, ["compensation", "negative", "positive", "negative"])
    assert found.positive.tolist() == [[1], [0], [2], [0]]
    assert not found.negative.any()
    assert found.observed.tolist() == [[True], [True], [True], [False]]


def test_items_of_down_sampled_negatives_are_like_others():
    samples = samples_of(["negative"], chosen=[0.0]).drop_columns("rate").append_column("rate", pa.array([0.5]))
    assert targets_of(samples, [LabelConfig(**LABEL)]).positive.tolist() == [[0]]
    parse_config(document_of(LABEL, samples={"negative_rate": 0.5}))


def test_a_part_of_the_targets_has_the_items_of_its_own_samples():
    found = targets([1.0, 0.0, 1.0], list("qrq"), [1.0, 2.0, 3.0]).part(1, 3).batch_items
    assert found.first.tolist() == [True, True]
    assert found.log_q.tolist() == [2, 3]


def test_label_with_a_target_may_learn_it_by_two_towers(tmp_path):
    towers = label_of() | {"name": "retrieval", "target": "chosen"}
    both = """
import keras
def build(inputs):
    parts = {"user": inputs["user"], "item": keras.layers.Dense(3)(inputs["item"])}
    return keras.Model(inputs, {"chosen": keras.layers.Dense(1)(inputs["price"]), **parts})
"""
    config = parse_config(document_of({"name": "chosen"}, towers))
    assert (config.output_names, config.served_vectors) == (("chosen", "retrieval"), ("user", "item"))
    model = model_of(tmp_path, {"name": "chosen"}, towers, source=both)
    samples = samples_of(["positive", "negative"], chosen=[1.0, 0.0])
    found = targets_of(samples, config.outputs)
    result = model.step(inputs_of(2), Targets(**vars(found) | {"batch_items": BatchItems.trial(2)}))
    assert result.losses.shape == (2, 2)
    assert result.losses[1, 1] == 0
    assert model.predict(inputs_of(2)).shape == (2, 2 + 3 + 3)


@pytest.mark.parametrize(
    ("label", "sections", "problem"),
    [
        ({"towers": None}, {}, "label chosen has no towers and loss in_batch. hint: only in_batch has them"),
        ({"loss": "squared"}, {}, "label chosen has towers and loss squared"),
        (label_of(item_column="sku"), {}, "towers.item_column sku, which is a column that impressions lack"),
        (label_of(item_column="price"), {}, "towers.item_column price, which is of type float. hint: .* string, int"),
        (label_of(item_column=""), {}, "towers.item_column: String should have at least 1 character"),
        (label_of(query="item"), {}, "towers.query and towers.item are both item"),
        (label_of(query="chosen"), {}, "output chosen is declared twice"),
        (label_of(temperature=0), {}, "towers.temperature: Input should be greater than 0"),
        (label_of(normalise="yes please"), {}, "towers.normalise: Input should be a valid boolean"),
        (label_of(log_q=False, frequency_rate=0.1), {}, "towers.frequency_rate has no effect without log_q"),
        (label_of(frequency_rate=0.0), {}, "towers.frequency_rate: Input should be greater than 0"),
        (label_of(frequency_rate=1.5), {}, "towers.frequency_rate: Input should be less than or equal to 1"),
        (label_of(frequency_buckets=0), {}, "towers.frequency_buckets: Input should be greater than or equal to 1"),
        (label_of(negatives=0), {}, "towers.negatives: Input should be greater than or equal to 1"),
        (label_of(reservoir=50), {}, "towers.reservoir has no effect without negatives"),
        (label_of(negatives=51, reservoir=50), {}, "towers.negatives is 51, the reservoir has 50 items"),
        (label_of(recall_at=0), {}, "towers.recall_at: Input should be greater than or equal to 1"),
        (label_of(temprature=1), {}, "unknown key, the nearest is temperature"),
        ({"correction": "importance"}, {}, "label chosen has correction importance and loss in_batch"),
        ({"range": (-1, 1)}, {}, "range -1 to 1, loss in_batch allows 0 to 1e"),
        ({"given": "label"}, {}, "label chosen is given label, which is not a label before it"),
        ({}, {"parts": [{"name": "p", "labels": ["query"]}]}, "label query, which does not exist. known: chosen, user"),
    ],
)
def test_towers_that_cannot_be_honoured_are_refused(label, sections, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_config(document_of(LABEL | label, **sections))


def test_one_label_at_most_has_two_towers():
    with pytest.raises(ConfigError, match="labels chosen and again have loss in_batch, wanted one"):
        parse_config(document_of(LABEL, LABEL | {"name": "again", "target": "chosen"}))


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ("{'user': inputs['user']}", "returns the outputs user, wanted one for each of the names user, item"),
        ("inputs['user']", r"returns \[None, 3\], wanted the vectors user, item by name"),
        ("{'user': inputs['user'], 'item': inputs['item']}", "returns user of dim 3 and item of dim 2"),
        (
            "{'user': inputs['user'], 'item': keras.layers.Reshape((1, 2))(inputs['item'])}",
            "output item .* is .None, 1, 2",
        ),
    ],
)
def test_model_without_two_vectors_of_one_size_is_refused(tmp_path, outputs, problem):
    source = f"import keras\ndef build(inputs):\n    return keras.Model(inputs, {outputs})\n"
    with pytest.raises(ModelError, match=problem):
        model_of(tmp_path, LABEL, source=source)
