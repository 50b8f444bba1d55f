"""Settings of recall that cannot be honoured are refused."""

import copy

import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import ConfigError
from tests.support.shop.shop import WRITTEN

LABEL = {"name": "label", "loss": "in_batch", "towers": {"item_column": "item"}}
SCORE = {"name": "score", "target": "label", "loss": "squared"}
PARTS = [{"name": "users", "labels": ["user"]}]


def config(recall, **sections):
    return parse_config({**copy.deepcopy(WRITTEN), "labels": [LABEL], "recall": recall, **sections})


def test_recall_is_off_unless_it_is_configured():
    assert parse_config(copy.deepcopy(WRITTEN)).recall is None
    assert config({"items": "items.jsonl"}).recall.max_k == 1_000
    assert config({"topic": "items"}).recall.items is None


@pytest.mark.parametrize(
    ("recall", "sections", "problem"),
    [
        ({}, {}, r"recall has no items\. hint: set recall\.items, recall\.topic or both"),
        ({"items": "i", "flip_overlap": 0}, {}, r"recall\.flip_overlap"),
        ({"items": "i", "flip_overlap": 1.1}, {}, r"recall\.flip_overlap"),
        ({"topic": "a/b"}, {}, r"recall\.topic: .*topic name 'a/b' is not allowed"),
        ({"topic": "clicks"}, {}, r"recall\.topic are both clicks"),
        ({"items": ""}, {}, r"recall\.items"),
        ({"items": "i", "refresh_s": 0}, {}, r"recall\.refresh_s"),
        ({"items": "i", "max_k": 100_001}, {}, r"recall\.max_k"),
        (
            {"items": "i", "scorer": "label"},
            {"labels": [LABEL, SCORE]},
            r"recall\.scorer is label, no label without towers\. known: score",
        ),
        ({"items": "i", "scorer": "score"}, {}, r"recall\.scorer is score, no label without towers\. known: none"),
        (
            {"items": "i", "scorer": "score", "scored": 999},
            {"labels": [LABEL, SCORE]},
            r"max_k is 1000, scored 999\. hint",
        ),
        (
            {"items": "i", "scorer": "score", "item_columns": ["item", "colour"]},
            {"labels": [LABEL, SCORE]},
            r"recall\.item_columns has colour\. known: ",
        ),
        ({"items": "i", "item_columns": ["item"]}, {}, r"recall\.item_columns has no effect without recall\.scorer"),
        ({"items": "i", "tree": {}}, {}, r"recall\.tree has no scorer\. hint: set recall\.scorer"),
        (
            {"items": "i", "scorer": "score", "tree": {"beam": 50, "fan_out": 10}},
            {"labels": [LABEL, SCORE]},
            r"max_k is 1000, tree\.beam × tree\.fan_out 500\. hint",
        ),
        ({"items": "i", "scorer": "score", "tree": {"fan_out": 1}}, {}, r"recall\.tree\.fan_out"),
        ({"items": "i", "scorer": "score", "tree": {"layers": 5}}, {}, r"recall\.tree\.layers"),
        ({"items": "i"}, {"labels": []}, r'\[recall\] needs a label with loss = "in_batch"\. hint: add'),
        (
            {"items": "i"},
            {"parts": PARTS, "serving": {"part": "users"}},
            r"\[recall\] needs both towers, serving\.part is users\. hint: remove either",
        ),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(recall, sections, problem):
    with pytest.raises(ConfigError, match=problem):
        config(recall, **sections)
