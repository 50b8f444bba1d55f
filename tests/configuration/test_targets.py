"""Labels that learn the value of another label."""

import pyarrow as pa
import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import ConfigError
from pipeline.model.loss.targets import targets_of
from tests.model.loss.test_losses import document_of

COARSE = {"name": "coarse", "target": "click"}


def config_of(*labels, **sections):
    document = document_of(*(label for label in labels if "target" not in label), **sections)
    return parse_config({**document, "labels": list(labels)})


def outputs_of(*labels):
    return {label.name: label for label in config_of(*labels).outputs}


def test_a_label_with_a_target_is_an_output_and_no_column_of_samples():
    config = config_of(COARSE, {"name": "click"}, {"name": "dwell", "loss": "squared"})
    assert config.label_names == ("click", "dwell")
    assert config.output_names == ("click", "dwell", "coarse")
    assert [label.name for feedback in config.feedbacks for label in feedback.labels] == ["click", "dwell"]


def test_settings_that_are_left_out_are_those_of_the_target():
    click = {"name": "click", "correction": "importance", "late_share": 0.25, "weight": 3.0}
    coarse = outputs_of(click, COARSE)["coarse"]
    assert (coarse.correction, coarse.late_share, coarse.weight) == ("importance", 0.25, 1.0)
    plain = outputs_of(click, COARSE | {"correction": "reversal", "late_share": "off"})["coarse"]
    assert (plain.correction, plain.late_share) == ("reversal", None)
    dwell = {"name": "dwell", "loss": "huber", "delta": 2.0, "range": [0, 60]}
    coarse = outputs_of({"name": "click"}, dwell, {"name": "coarse", "target": "dwell"})["coarse"]
    assert (coarse.loss, coarse.delta, coarse.limits) == ("huber", 2.0, (0, 60))


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ({"target": "bought"}, "label coarse has target bought, wanted one of click, dwell"),
        ({"target": "coarse"}, "label coarse has target coarse, wanted one of click, dwell"),
        ({"target": "click", "column": "dwell"}, "label coarse has target click and column. hint: column belongs"),
        ({"target": "click", "event": "clicks"}, "label coarse has target click and event"),
        ({"target": "click", "range": [0, 1]}, "label coarse has target click and range"),
        (
            {"target": "dwell", "loss": "logistic"},
            "label coarse has loss logistic, which allows 0 to 1; its target dwell",
        ),
        ({"target": "click", "delta": 1.0}, "label coarse has delta and loss logistic"),
        ({"target": "click", "name": "click"}, "label click is declared twice"),
        ({"target": "click", "late_share": 0.5}, "label coarse has late_share without"),
    ],
)
def test_a_target_that_cannot_be_learned_is_refused(label, problem):
    with pytest.raises(ConfigError) as caught:
        config_of({"name": "click"}, {"name": "dwell", "loss": "squared"}, {"name": "coarse"} | label)
    assert problem in str(caught.value)


def test_a_correction_of_the_target_that_another_loss_lacks_is_refused():
    with pytest.raises(ConfigError, match="label coarse has correction importance and loss squared"):
        config_of({"name": "click", "correction": "importance", "late_share": 0.5}, COARSE | {"loss": "squared"})


def test_a_problem_with_a_setting_of_the_target_names_the_target():
    with pytest.raises(ConfigError, match=r"loss squared\. hint: .*; its correction is of click"):
        config_of({"name": "click", "correction": "importance", "late_share": 0.5}, COARSE | {"loss": "squared"})


LISTS = {
    "events": {
        "key": ["id"],
        "impressions": {"columns": {"id": "string", "request": "string"}},
        "clicks": {"columns": {"id": "string", "dwell": "float"}},
    },
    "samples": {"policy": "close"},
    "fields": [{"name": "id", "columns": ["id"]}],
}
SHARES = {"loss": "softmax", "event": "clicks", "column": "dwell", "range": [0, 1]}


@pytest.mark.parametrize(
    ("target", "label", "column"),
    [
        ({"listwise": 0.5}, {}, None),
        ({"top": {}}, {}, None),
        ({"listwise": 0.5}, {"listwise": 1.0, "list_column": "id"}, "id"),
        ({"loss": "softmax"}, {}, "request"),
        (SHARES, {"loss": "logistic"}, None),
        (SHARES, {"loss": "logistic", "top": {}, "list_column": "id"}, "id"),
    ],
)
def test_a_label_takes_the_list_column_of_its_target_with_a_loss_over_lists_alone(target, label, column):
    labels = [{"name": "click", "list_column": "request"} | target, COARSE | label]
    coarse = parse_config(LISTS | {"labels": labels}).outputs[-1]
    assert (coarse.name, coarse.list_column) == ("coarse", column)


def test_a_column_of_lists_that_a_label_with_a_target_does_not_read_is_refused():
    labels = [{"name": "click", "list_column": "request", "top": {}}, COARSE | {"list_column": "request"}]
    with pytest.raises(ConfigError, match="label coarse has list_column request and loss logistic"):
        parse_config(LISTS | {"labels": labels})
    for reader in ({"listwise": 1.0}, {"top": {}}):
        with pytest.raises(ConfigError, match="label coarse has no list_column and"):
            parse_config(LISTS | {"labels": [labels[0], COARSE | reader]})


def test_a_setting_of_the_target_that_does_not_apply_is_not_taken():
    importance = {"name": "click", "correction": "importance", "late_share": 0.25}
    coarse = outputs_of(importance, COARSE | {"correction": "reversal"})["coarse"]
    assert (coarse.correction, coarse.late_share) == ("reversal", None)
    dwell = {"name": "dwell", "loss": "huber", "delta": 2.0, "range": [0, 60]}
    coarse = outputs_of({"name": "click"}, dwell, {"name": "coarse", "target": "dwell", "loss": "squared"})["coarse"]
    assert (coarse.loss, coarse.delta) == ("squared", None)
    coarse = outputs_of({"name": "click"}, dwell, {"name": "coarse", "target": "dwell", "loss": "huber"})["coarse"]
    assert coarse.delta == 2.0


def test_a_correction_of_its_own_must_fit_the_feedback_of_the_target():
    with pytest.raises(ConfigError, match="label coarse has correction calibration, and its feedback waits"):
        config_of({"name": "click"}, COARSE | {"correction": "calibration"})


def test_both_labels_learn_from_one_column():
    samples = pa.record_batch(
        {
            "click": pa.array([1.0, 0.0, None, 1.0], pa.float32()),
            "weight": pa.array([1.0, 2.0, 1.0, 1.0], pa.float32()),
            "rate": pa.array([1.0] * 4, pa.float32()),
            "kind": pa.array(["positive", "negative", "negative", "compensation"]),
            "negative_written": pa.array([False, False, False, True]),
        }
    )
    targets = targets_of(samples, config_of({"name": "click"}, COARSE).outputs)
    for part in (targets.positive, targets.negative, targets.observed, targets.value, targets.earlier):
        assert part[:, 0].tolist() == part[:, 1].tolist()
    assert targets.positive[:, 1].tolist() == [1, 0, 0, 1]
    assert targets.negative[:, 1].tolist() == [0, 2, 0, -1]
