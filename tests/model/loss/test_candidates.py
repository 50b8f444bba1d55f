"""Candidates that were not shown: what they teach and whom, in float64 and in a step, and what is refused."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from pipeline.configuration.config import parse_config
from pipeline.configuration.model.labels import LabelConfig
from pipeline.errors import ConfigError
from pipeline.model.loss.list_terms import ListTerm, list_term_losses
from pipeline.model.loss.soft_targets import Lesson, soft_target_losses
from pipeline.model.loss.targets import TargetError, targets_of
from tests.model.loss.test_losses import document_of, samples_of
from tests.model.loss.test_soft_targets import BESIDE, FINE, DenseModel
from tests.model.test_model import inputs_of

LOGGED = {"columns": {"id": "string", "user": "int", "item": "string", "fine": "float"}, "score": "fine"}
COARSE = {"name": "coarse", "target": "label", "teacher": "label", "distill": 0.5, "candidates": True}
LISTED = COARSE | {"list_column": "item", "listwise": 2.0}
CLOSE = {"policy": "close"}


def document_with(coarse=COARSE, candidates=LOGGED, **sections):
    document = document_of({"name": "label"}, samples=CLOSE, **sections)
    document["events"] |= {} if candidates is None else {"candidates": copy.deepcopy(candidates)}
    return document | {"labels": [{"name": "label"}, coarse]}


def samples(scores, weight=None, lists=None):
    """A clicked impression, one that is not, and candidates with these scores."""
    n = 2 + len(scores)
    kinds = ["positive", "negative", *["candidate"] * len(scores)]
    batch = samples_of(kinds, weight=weight, label=[1.0, 0.0, *[None] * len(scores)])
    batch = batch.append_column("candidate_score", pa.array([None, None, *scores], pa.float32()))
    return batch.append_column("item", pa.array(lists or ["q"] * n))


def labels_of(coarse=COARSE):
    return parse_config(document_with(coarse)).outputs


def test_a_candidate_has_a_soft_target_and_observes_no_label():
    found = targets_of(samples([0.25, 1.0], [1.0, 2.0, 0.5, 3.0]), labels_of(LISTED | {"weight": 4}))
    assert found.soft.tolist() == [[0, 0], [0, 0], [0.25, 0.5], [1.0, 3.0]]
    assert found.observed.tolist() == [[True, True], [True, True], [False, False], [False, False]]
    for column in (found.positive, found.negative, found.scored_negative):
        assert not column[2:].any()
    assert found.lists.tolist() == [[-1, 0], [-1, 0], [-1, 0], [-1, 0]]
    assert found.part(1, 3).soft.tolist() == [[0, 0], [0.25, 0.5]]


def test_lists_of_values_hold_impressions_only():
    found = targets_of(samples([0.25, 1.0]), labels_of(LISTED | {"listwise_target": "value"}))
    assert found.lists[:, 1].tolist() == [0, 0, -1, -1]


def test_samples_from_before_candidates_were_logged_have_no_soft_targets():
    found = targets_of(samples_of(["positive"], label=[1.0]), labels_of())
    assert found.soft.tolist() == [[0, 0]]


@pytest.mark.parametrize("score", [-0.5, 1.5, float("nan"), float("inf"), None])
def test_a_score_that_no_join_emits_names_its_sample(score):
    with pytest.raises(TargetError, match="sample 3 of a batch has candidate_score") as caught:
        targets_of(samples([0.5, score]), labels_of())
    assert caught.value.row == 3


def test_losses_and_gradients_in_float64_have_the_logged_score_as_target_and_reach_the_learner_alone():
    random = np.random.default_rng(1)
    outputs, weights = tf.constant(random.normal(0, 2, (6, 2))), tf.constant(random.random((6, 2)) + 0.1)
    soft = tf.constant(np.array([[0, 0], [0.9, 1.0], [0, 0], [0.0, 2.0], [0.3, 0.5], [0, 0]]))
    lists = tf.constant([[-1, i] for i in (0, 0, 0, 1, 1, 1)], tf.int32)
    candidate = soft[:, 1].numpy() > 0
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(outputs)
        of_targets = soft_target_losses([Lesson(1, 0, 0.5, True)], outputs, weights, soft)
        of_lists = list_term_losses([ListTerm(1, 0, 0.7, True)], outputs, weights, weights, lists, soft)
    z, v = outputs[:, 1], weights[:, 1]
    p = tf.where(candidate, soft[:, 0], tf.sigmoid(outputs[:, 0]))
    np.testing.assert_allclose(of_targets[:, 1], 0.5 * v * tf.nn.sigmoid_cross_entropy_with_logits(p, z), rtol=1e-12)
    gradient = tape.gradient(of_targets, outputs).numpy()
    np.testing.assert_allclose(gradient[:, 1], 0.5 * v * (tf.sigmoid(z) - p), rtol=1e-10)
    assert not gradient[:, 0].any()
    wanted, by_lists = 0.0, tape.gradient(of_lists, outputs).numpy()
    for here in (slice(0, 3), slice(3, 6)):
        share = tf.sigmoid(z[here]) / tf.reduce_sum(tf.sigmoid(z[here]))
        wanted -= 0.7 * tf.reduce_sum(v[here] * p[here] / tf.reduce_sum(p[here]) * tf.math.log(share))
    np.testing.assert_allclose(tf.reduce_sum(of_lists), wanted, rtol=1e-12)
    assert np.abs(by_lists[:, 1]).min() > 0
    assert not by_lists[:, 0].any()


@pytest.mark.parametrize("rows", [4, 3])
def test_a_step_of_candidates_moves_the_coarse_ranker_by_their_scores_and_not_the_fine_one(tmp_path, rows):
    (tmp_path / "model.py").write_text(FINE.replace("COARSE", BESIDE.replace("ROWS", 'inputs["item"]')))
    config = parse_config(document_with(LISTED))
    model, x = DenseModel(config, tmp_path), inputs_of(4)[:rows]
    scores, weight = [0.1, 0.9, 0.5, 0.0][:rows], [1.0, 2.0, 1.0, 1.0][:rows]
    batch = samples(scores, [1.0, 1.0, *weight]).slice(2)
    before = {variable.path: variable.numpy() for variable in model._model.trainable_variables}
    result = model.step(x, targets_of(batch, config.outputs))
    z = result.logits[:, 1].astype(np.float64)
    loss = 0.5 * np.array(weight) * (np.logaddexp(0, z) - np.array(scores) * z)
    log_share = -np.logaddexp(0, -z) - np.logaddexp.reduce(-np.logaddexp(0, -z))
    loss -= 2.0 * np.array(weight) * np.array(scores) / sum(scores) * log_share
    assert result.sample_loss * sum(weight) == pytest.approx(loss.sum(), rel=1e-5)
    moved = {v.path for v in model._model.trainable_variables if (v.numpy() != before[v.path]).any()}
    assert len(moved) == 4  # two layers of the coarse ranker
    assert not result.gradient[:, [0, 1, 2, 5]].any()  # user and price, which the fine ranker reads
    assert np.abs(result.gradient[:, 3:5]).max() > 0


def test_first_step_can_be_tried(tmp_path):
    (tmp_path / "model.py").write_text(FINE.replace("COARSE", BESIDE.replace("ROWS", 'inputs["item"]')))
    DenseModel(parse_config(document_with()), tmp_path).try_step()


@pytest.mark.parametrize(
    ("coarse", "candidates", "problem"),
    [
        ({}, None, "label coarse has candidates, and none are logged. hint: declare [events.candidates]"),
        ({"candidates": False}, {}, "no label learns events.candidates. hint: candidates = true for a label with"),
        ({"teacher": None, "distill": None}, {}, "label coarse has candidates without teacher"),
        ({}, {"score": "rank"}, "score rank of events.candidates is missing. hint: declare a float column"),
        ({}, {"score": "user"}, "score user of events.candidates is int. hint: declare a float column"),
        ({}, {"score": None}, "events.candidates.score: "),
        (
            {},
            {"columns": {"id": "string", "fine": "float", "price": "int"}},
            "price is int, and impressions have float",
        ),
        (
            {},
            {"columns": {"id": "string", "fine": "float", "x": "int"}},
            "x is int, and impressions have no such column",
        ),
        ({}, {"columns": {"user": "int", "fine": "float"}}, "candidates.columns lacks id, which key or partition_by"),
        (
            {},
            {"columns": {"id": "string", "price": "float"}, "score": "price"},
            "score price of events.candidates is a",
        ),
        ({}, {"window_s": 0}, "events.candidates.window_s: "),
        (
            LISTED,
            {"window_s": 5},
            "has lists and a window of 600 s, events.candidates.window_s is 5, which takes lists",
        ),
        ({}, {"topic": "clicks"}, "are both clicks"),
        ({}, {"horizon_s": 5}, "events.candidates.horizon_s: unknown key"),
    ],
)
def test_candidates_that_cannot_be_honoured_are_refused(coarse, candidates, problem):
    logged = None if candidates is None else LOGGED | candidates
    with pytest.raises(ConfigError) as caught:
        parse_config(document_with(COARSE | coarse, logged))
    assert problem in str(caught.value)


def test_label_with_the_name_of_the_score_column_of_samples_is_refused():
    document = copy.deepcopy(document_with())
    document["labels"][0]["name"] = document["labels"][1]["target"] = document["labels"][1]["teacher"] = (
        "candidate_score"
    )
    with pytest.raises(ConfigError, match="label candidate_score has the name of a column of samples"):
        parse_config(document)


def test_impression_column_with_the_name_of_the_score_column_of_samples_is_refused_once():
    document = copy.deepcopy(document_with())
    document["events"]["impressions"]["columns"]["candidate_score"] = "float"
    with pytest.raises(ConfigError) as caught:
        parse_config(document)
    assert str(caught.value).count("impression column candidate_score has the name of a column of samples") == 1
    del document["events"]["candidates"], document["labels"][1]["candidates"]
    parse_config(document)


def test_candidates_take_the_window_of_the_feedback_of_their_label_unless_it_is_set():
    document = document_with()
    assert parse_config(document).candidate_window_s == 600
    document["samples"] |= {"window_s": 60}
    assert parse_config(document).candidate_window_s == 60
    document["events"]["candidates"]["window_s"] = 5
    assert parse_config(document).candidate_window_s == 5
    assert LabelConfig(**COARSE).lists_candidates
