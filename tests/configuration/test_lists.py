"""Fields that read lists: every combination of settings that cannot be honoured is refused by name."""

import copy

import pytest

from pipeline.configuration.config import parse_config
from pipeline.errors import ConfigError
from tests.support.shop.shop import WRITTEN

HISTORY = {"name": "history", "columns": ["tags"], "dim": 4, "pooling": "none", "max_length": 3}
MEAN = {"name": "history", "columns": ["tags"], "dim": 4, "pooling": "mean", "weights": "strengths"}


def parsed(*fields: dict, dense: tuple[dict, ...] = ()):
    document = copy.deepcopy(WRITTEN) | {"fields": list(fields), "dense": list(dense)}
    document["events"]["impressions"]["columns"] |= {"strengths": "floats", "price": "float", "sizes": "ints"}
    return parse_config(document)


@pytest.mark.parametrize(
    "field",
    [
        HISTORY,
        HISTORY | {"keep": "first"},
        HISTORY | {"columns": ["sizes"], "transform": "log2"},
        HISTORY | {"columns": ["user"], "transform": "model:split"},
        MEAN,
        MEAN | {"pooling": "sum", "weights": "sizes"},
        MEAN | {"pooling": "sqrtn", "columns": ["sizes"], "transform": "bucket", "boundaries": [1, 2]},
        MEAN | {"pooling": "max", "weights": None},
    ],
)
def test_what_can_be_honoured_is_accepted(field):
    assert parsed(field).fields[0].name == "history"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"max_length": None}, "fields.0: pooling none needs max_length"),
        ({"max_length": 0}, "fields.0.max_length: "),
        ({"max_length": 5000}, "fields.0.max_length: "),
        ({"keep": "middle"}, "fields.0.keep: "),
        ({"pooling": "median"}, "fields.0.pooling: "),
        ({"pooling": "mean"}, "max_length 3 has no effect with pooling mean, only with none"),
        ({"pooling": "sum", "max_length": None, "keep": "last"}, "keep last has no effect with pooling sum"),
        ({"weights": "strengths"}, "weights have no effect with pooling none"),
        ({"columns": ["user"]}, "field history has pooling none and reads single values, wanted a list column"),
        ({"columns": ["user", "item"]}, "field history has pooling none and reads single values"),
        ({"columns": ["at"]}, "field history has pooling none and reads single values"),
        ({"columns": ["at"], "transform": "hour"}, "field history has pooling none and reads single values"),
    ],
)
def test_sequence_that_cannot_be_honoured_is_refused(changes, problem):
    with pytest.raises(ConfigError, match=problem):
        parsed(HISTORY | changes)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pooling": "max"}, "weights have no effect with pooling max, only with sum, mean and sqrtn"),
        ({"weights": "missing"}, "field history: weights missing is a column that impressions lack"),
        ({"weights": "price"}, "weights price is a column of type float, wanted floats, ints or uints"),
        ({"weights": "tags"}, "weights tags is a column of type strings, wanted floats, ints or uints"),
        ({"columns": ["user"]}, "weights strengths needs one list column with transform value, bucket or log2"),
        ({"columns": ["user", "item"]}, "weights strengths needs one list column"),
        ({"transform": "model:split"}, "weights strengths needs one list column"),
    ],
)
def test_weights_that_cannot_be_honoured_are_refused(changes, problem):
    with pytest.raises(ConfigError, match=problem):
        parsed(MEAN | changes)


def test_input_with_the_name_of_a_mask_is_refused():
    other = {"name": "history_mask", "columns": ["user"]}
    number = {"name": "history_mask", "column": "price"}
    for fields, dense in (((HISTORY, other), ()), ((HISTORY,), (number,))):
        with pytest.raises(ConfigError, match="input history_mask has the name of the mask of field history"):
            parsed(*fields, dense=dense)
    assert parsed(MEAN, other)  # no mask, so the name is free


def test_all_problems_of_a_field_are_reported_at_once():
    with pytest.raises(ConfigError, match=r"max_length 3 has no effect.*keep first has no effect.*weights have no"):
        parsed(HISTORY | {"pooling": "max", "keep": "first", "weights": "strengths"})
