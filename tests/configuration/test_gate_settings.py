"""Settings of the gate that cannot be honoured are refused."""

import copy

import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import ConfigError
from tests.support.shop.shop import WRITTEN


def config(**gate):
    return parse_config({**copy.deepcopy(WRITTEN), "gate": gate})


def test_the_gate_is_off_unless_it_is_configured():
    assert parse_config(copy.deepcopy(WRITTEN)).gate is None
    assert config().gate.groups == 1
    assert config(source="user").gate.groups == 128


@pytest.mark.parametrize(
    ("gate", "problem"),
    [
        ({"label": "no"}, "gate.label is no, wanted a logistic label. hint: name one of them: label"),
        ({"source": "no"}, "gate.source no is no column of impressions"),
        ({"source": "tags"}, "gate.source tags is strings, wanted a column of type"),
        ({"on_corrupted": "undo"}, "gate.on_corrupted"),
        ({"rollbacks_per_day": 0}, "gate.rollbacks_per_day"),
        ({"memory_samples": 1_000}, "gate.memory_samples is 1000, wanted at least 50000"),
        ({"tolerance": 0}, "gate.tolerance"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(gate, problem):
    with pytest.raises(ConfigError, match=problem):
        config(**gate)


def test_a_label_whose_positives_are_compensations_is_refused():
    with pytest.raises(ConfigError, match=r"gate\.label label has policy fake_negative"):
        parse_config({**copy.deepcopy(WRITTEN), "gate": {}, "samples": {"policy": "fake_negative"}})
