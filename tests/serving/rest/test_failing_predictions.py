"""The user's code and the model fail: the client gets an error that is JSON, and the others their predictions."""

import json

import pytest

from tests.support.command.scrape import parsed
from tests.support.world.served_model import INSTANCE, PREDICT, request, served_model

FEATURES = """
import sys
import threading


def item(values, at):
    for value in values.to_pylist():
        if value == 13:
            raise RuntimeError("no thirteen")
        if value == 14:
            sys.exit("no fourteen")
        if value == 15:
            return 15
        if value == 16:
            threading.Event().wait()
    return values
"""
MODEL = '''
"""A model whose logit is not a number for prices below zero, and without elements in `seen`."""

import keras


def build(inputs):
    seen = keras.layers.GlobalAveragePooling1D()(inputs["user"], mask=inputs["user_mask"])
    joined = keras.layers.Concatenate()([inputs["item"], inputs["price"], seen])
    return keras.Model(inputs, keras.layers.Dense(1)(joined) + 0 * keras.ops.log(inputs["price"]))
'''
FIELDS = [
    {"name": "item", "columns": ["item"], "dim": 8, "transform": "features:item"},
    {"name": "user", "columns": ["seen"], "dim": 16, "pooling": "none", "max_length": 2},
]
COLUMNS = {"id": "int", "user": "int", "item": "int", "price": "float", "seen": "ints"}
EVENTS = {"key": ["id"], "impressions": {"columns": COLUMNS}, "clicks": {"columns": {"id": "int"}}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("failing")
    (root / "features.py").write_text(FEATURES)
    serving = {"threads": 2, "deadline_s": 0.2}
    with served_model(root, MODEL, events=EVENTS, fields=FIELDS, serving=serving) as made:
        yield made


def predict(model, **columns):
    instance = {**INSTANCE, "seen": [3, 4]}
    status, content = request(model.server, "POST", PREDICT, {"instances": [instance, {**instance, **columns}]})
    return status, json.loads(content, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (13, "instance 1: field item: features:item failed: RuntimeError: no thirteen"),
        (14, "instance 1: field item: features:item failed: it called sys.exit('no fourteen')"),
        (15, "field item: features:item returned int"),
    ],
)
def test_a_user_function_that_fails_is_an_error_of_the_server(model, item, problem):
    status, answer = predict(model, item=item)
    assert status == 500
    assert problem in answer["error"]
    assert predict(model, item=1)[0] == 200


def test_a_prediction_that_is_not_a_number_is_an_error_which_names_instance_and_label(model):
    status, answer = predict(model, price=-1.0)
    assert status == 500
    assert "prediction of label for instance 1 is nan" in answer["error"]
    assert "hint: check the size of its dense inputs" in answer["error"]


def test_an_empty_list_that_the_model_divides_by_is_named(model):
    for columns in ({"seen": []}, {"seen": None}):
        status, answer = predict(model, **columns)
        assert status == 500
        assert "prediction of label for instance 1 is nan" in answer["error"]
        assert "the instance has no elements in seen; run: springtide config check" in answer["error"]
    assert predict(model, seen=[5])[0] == 200


def test_a_function_that_never_returns_ends_at_the_deadline_and_the_other_threads_predict(model):
    assert predict(model, item=16)[0] == 504
    assert predict(model, item=1)[0] == 200
    text = request(model.server, "GET", "/metrics")[1].decode()
    assert parsed(text)("springtide_predict_requests_total", status="504") == 1
    assert request(model.server, "GET", "/healthz")[0] == 200
