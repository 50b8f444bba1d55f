"""A writer schema whose values are not bounded by their bytes is refused; the others are used as before."""

import pytest

from pipeline.formats.avro_shape import MAX_DEPTH, MAX_EMPTY
from pipeline.formats.schemas import parse_schema


def record(*kinds, name="r"):
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": kind} for n, kind in enumerate(kinds)]}


def array(items):
    return {"type": "array", "items": items}


NOTHING = {"type": "fixed", "name": "nothing", "size": 0}


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "null"},
        NOTHING,
        record(name="empty"),
        record("null", "null", name="nulls"),
        record(record("null", name="inner"), name="outer"),
    ],
    ids=str,
)
def test_an_array_of_items_that_take_no_bytes_is_refused(items):
    for within in (array(items), {"type": "map", "values": array(items)}, ["null", array(items)], array(array(items))):
        with pytest.raises(ValueError, match="items of an array that take no bytes"):
            parse_schema(record("long", within))


def test_an_array_of_a_named_type_without_bytes_is_refused():
    with pytest.raises(ValueError, match="items of an array that take no bytes"):
        parse_schema(record(NOTHING, array("nothing")))


def test_records_that_hold_the_next_one_twice_are_refused():
    kind = "null"
    for n in range(40):
        kind = record(kind, kind if isinstance(kind, str) else kind["name"], name=f"r{n}")
    with pytest.raises(ValueError, match=f"more than {MAX_EMPTY} values that take no bytes"):
        parse_schema(kind)


def test_values_without_bytes_are_counted():
    assert parse_schema(record("long", *["null"] * MAX_EMPTY)).name == "r"
    with pytest.raises(ValueError, match=f"more than {MAX_EMPTY} values"):
        parse_schema(record("long", *["null"] * (MAX_EMPTY + 1)))
    with pytest.raises(ValueError, match=f"more than {MAX_EMPTY} values"):
        parse_schema(record("long", array(record("long", *["null"] * (MAX_EMPTY + 1), name="item"))))


@pytest.mark.parametrize("kind", ["r", ["null", "r"], array("r"), {"type": "map", "values": "r"}], ids=str)
def test_a_record_that_contains_itself_is_refused(kind):
    """A decoder on the C stack would follow it, as deeply as its bytes want."""
    with pytest.raises(ValueError, match="record r contains itself"):
        parse_schema(record("long", kind))


def nested(levels):
    """Records next to each other, of which each holds the one before."""
    inner = record("long", name="r0")
    return record(inner, *(record(["null", f"r{n}"], name=f"r{n + 1}") for n in range(levels)), name="outer")


def test_values_are_nested_to_a_bound():
    assert parse_schema(nested((MAX_DEPTH - 2) // 2)).name == "outer"
    for levels in (MAX_DEPTH // 2, 5_000):
        with pytest.raises(ValueError, match=f"more than {MAX_DEPTH} levels"):
            parse_schema(nested(levels))


ORDINARY = [["null", "string"], array("long"), array(["null", "long"]), {"type": "map", "values": "null"}]


@pytest.mark.parametrize("kind", ORDINARY, ids=str)
def test_ordinary_schemas_are_accepted(kind):
    assert parse_schema(record("long", kind)).name == "r"
