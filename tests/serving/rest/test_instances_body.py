"""The body of a prediction request: the same instances as a JSON parser finds, in pieces, within every bound."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.configuration.deployment.serving import Serving
from pipeline.errors import InputError
from pipeline.serving.link.response import Refusal
from pipeline.serving.rest.instances_body import parse_instances

BOUNDS = Serving()
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))


def parsed(body, **bounds):
    return [instance for piece in parse_instances(body, Serving(**bounds), no_pause) for instance in piece]


def no_pause():
    """Nothing else waits."""


@dataclass
class Outcome:
    """What a body gives: its instances, or that it is refused."""

    instances: list | None


def outcome(body):
    try:
        return Outcome(parsed(body))
    except (InputError, Refusal):
        return Outcome(None)


def outcome_of_json(body):
    try:
        request = json.loads(body.decode("utf-8", "strict"))
        instances = request["instances"]
        return Outcome(instances if isinstance(instances, list) and instances else None)
    except (ValueError, TypeError, KeyError):
        return Outcome(None)


@settings(max_examples=40)
@given(
    st.lists(VALUES, min_size=1, max_size=20).map(lambda values: values * 30), st.booleans(), st.sampled_from([None, 1])
)
def test_pieces_are_the_instances_of_the_body(instances, ascii_only, indent):
    body = json.dumps({"signature_name": "x", "instances": instances, "y": [[1], {"instances": [2]}]}, indent=indent)
    body = json.dumps(json.loads(body), ensure_ascii=ascii_only, indent=indent)
    assert parsed(body.encode("utf-8", "surrogatepass")) == instances or "\\ud" in body


@given(
    st.lists(
        st.sampled_from(
            ["{", "}", "[", "]", ",", ":", '"', "\\", '"instances"', "1", " ", '"a"', "{}", '{"instances":[', "]}"]
        ),
        max_size=14,
    )
)
def test_only_json_is_accepted(tokens):
    body = "".join(tokens).encode()
    assert outcome(body) == outcome_of_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":[{"a":1},]}',
        b'{"instances":[,{"a":1}]}',
        b'{"instances":[{"a":1},,{"a":2}]}',
        b'{"instances":[{"a":1} {"a":2}]}',
        b'{"instances":[{"a":1}]',
        b'{"instances":[{"a":1}]}}',
        b'{"instances":[{"a":1}]} x',
        b'{"instances":[{"a":"\xff"}]}',
        b'{"instances":[{"a":"\\ud800"}]}',
        '{"instances":[{}]}'.encode("utf-16"),
        b"",
        b"   ",
    ],
)
def test_a_body_that_is_not_json_is_refused(body):
    with pytest.raises(InputError, match="not json"):
        parsed(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"3",
        b"null",
        b"{}",
        b'{"instances": []}',
        b'{"instances": [ ]}',
        b'{"instances": {}}',
        b'{"instances": "[1]"}',
        b'{"x": "\\"instances\\":[1]"}',
        b'{"x": {"instances": [1]}}',
        b'{"instances": [1], "instances": []}',
        b'{"x": [' + b"[]," * 20_000 + b"[]]}",
    ],
)
def test_a_body_without_instances_is_refused(body):
    with pytest.raises(InputError, match="no instances"):
        parsed(body)


def test_a_byte_order_mark_an_escaped_name_and_brackets_in_texts_are_read():
    assert parsed(b'\xef\xbb\xbf{"instances":[{"a":1}]}') == [{"a": 1}]
    assert parsed(b'{"\\u0069nstances":[{"a":1}]}') == [{"a": 1}]
    assert parsed(b'{"instances":[{"a":"]},{\\"[\\\\"},{"b":"\\\\"}]}') == [{"a": ']},{"[\\'}, {"b": "\\"}]


def test_the_error_names_the_instances_of_the_piece():
    body = b'{"instances":[' + b"{}," * 300 + b"nonsense]}"
    with pytest.raises(InputError, match="instances 256 to 300 is not json"):
        parsed(body)


def test_as_many_instances_as_allowed_are_read_and_one_more_is_refused():
    body = b'{"instances":[' + b",".join([b"{}"] * 1_000) + b"]}"
    assert len(parsed(body, max_instances=1_000)) == 1_000
    with pytest.raises(Refusal, match="1000 instances, at most 999") as refused:
        parsed(body, max_instances=999)
    assert refused.value.response.status == 413


def test_a_body_is_nested_as_deep_as_allowed_and_no_deeper():
    def nested(depth):
        return b'{"instances":[{"a":' + b"[" * (depth - 3) + b"]" * (depth - 3) + b"}]}"

    assert parsed(nested(9), max_depth=9)
    with pytest.raises(Refusal, match="nested 10 deep, at most 9"):
        parsed(nested(10), max_depth=9)
    assert parsed(nested(200), max_depth=200)


@pytest.mark.parametrize("begin", [b'{"instances":', b'{"x":', b"", b'{"instances":[{"a":'])
@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
def test_a_very_deep_body_is_refused(begin, bracket):
    with pytest.raises(Refusal, match="deep"):
        parsed(begin + bracket * 100_000)


def test_an_instance_with_more_values_than_allowed_is_refused_by_number():
    body = b'{"instances":[{},{"a":[' + b"1," * 99 + b"1]}]}"
    assert parsed(body, max_instance_values=102)
    with pytest.raises(Refusal, match="instance 1 has about"):
        parsed(body, max_instance_values=50)


@pytest.mark.parametrize("shift", range(6))
@pytest.mark.parametrize("text", ["\\", '\\"', '"', '\\\\"', "x{[,"])
def test_strings_are_found_wherever_a_long_body_is_cut_to_be_scanned(shift, text):
    instances = [{"a": "y" * (32_768 - 22 + shift) + text * 3 + "]}", "b": [1, 2]}, {"c": text * 20_000}, {}]
    assert parsed(json.dumps({"instances": instances}).encode()) == instances


def test_a_long_body_is_read_with_pauses():
    body, pauses = b'{"instances":[' + b"{}," * 12_799 + b"{}]}", []
    instances = [each for piece in parse_instances(body, BOUNDS, lambda: pauses.append(1)) for each in piece]
    assert len(instances) == 12_800
    assert len(pauses) == 38_416 // 32_768 + 12_800 // 128 - 1


def test_pieces_are_small():
    body = b'{"instances":[' + b",".join([b'{"a":[1,2,3]}'] * 5_000 + [b'{"a":[' + b"1," * 8_000 + b"1]}"] * 3) + b"]}"
    lengths = [len(piece) for piece in parse_instances(body, BOUNDS, no_pause)]
    assert sum(lengths) == 5_003
    assert max(lengths) == 128
    assert lengths[-3:] == [1, 1, 1]


def test_a_number_of_too_many_digits_is_refused():
    with pytest.raises(InputError, match="not json"):
        parsed(b'{"instances":[{"a":' + b"9" * 5_000 + b"}]}")
