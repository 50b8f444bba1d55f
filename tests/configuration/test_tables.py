"""`[[tables]]`: fields take the settings of the table they name; whatever does not fit together is refused by name."""

import pytest

from pipeline.configuration.config import Config, parse_config
from pipeline.configuration.model.tables import fields_by_table, tables_of
from pipeline.errors import ConfigError

ITEM = {"name": "item", "columns": ["item"], "table": "items"}
SEEN = {"name": "seen", "columns": ["seen"], "table": "items", "pooling": "mean"}
USER = {"name": "user", "columns": ["user"], "dim": 3}
ITEMS = {
    "name": "items",
    "dim": 8,
    "init_scale": 0.5,
    "optimizer": {"kind": "adam", "learning_rate": 0.01},
    "admission": {"kind": "count", "threshold": 3},
    "expiry": {"ttl_s": 60.0},
}


def config_of(tables: list[dict], *fields: dict) -> Config:
    columns = {"id": "string", "user": "string", "item": "string", "seen": "strings"}
    events = {"key": ["id"], "impressions": {"columns": columns}, "clicks": {"columns": {"id": "string"}}}
    return parse_config({"events": events, "tables": tables, "fields": list(fields)})


def refused(tables: list[dict], *fields: dict) -> str:
    with pytest.raises(ConfigError) as failure:
        config_of(tables, *fields)
    return str(failure.value)


def test_fields_have_the_settings_of_their_table():
    config = config_of([ITEMS], USER, ITEM, SEEN)
    for field in config.fields[1:]:
        assert (field.dim, field.init_scale, field.optimizer.kind) == (8, 0.5, "adam")
        assert (field.admission.threshold, field.expiry.ttl_s) == (3, 60.0)
    assert [field.table_name for field in config.fields] == ["user", "items", "items"]


def test_tables_are_in_the_order_of_the_first_field_that_reads_them():
    config = config_of([ITEMS], ITEM, USER, SEEN)
    assert list(tables_of(config.fields)) == ["items", "user"]
    assert tables_of(config.fields)["items"] == config.tables[0]
    assert tables_of(config.fields)["user"].dim == 3
    assert fields_by_table(config.fields) == {"items": ("item", "seen"), "user": ("user",)}


def test_a_field_may_repeat_a_setting_of_its_table():
    assert config_of([ITEMS], {**ITEM, "dim": 8, "expiry": {"ttl_s": 60}}).fields[0].dim == 8


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("dim", 4),
        ("init_scale", 0.1),
        ("optimizer", {"kind": "sgd"}),
        ("admission", {"kind": "off"}),
        ("expiry", {"ttl_s": 61.0}),
        ("quantise", 4),
    ],
)
def test_a_field_that_contradicts_its_table_is_refused(setting, value):
    problem = f"fields: field seen sets {setting}, which its table items has otherwise. hint: remove it, or set it in"
    assert problem in refused([ITEMS], ITEM, {**SEEN, setting: value})


def test_an_unknown_table_is_refused():
    assert "field item names table items, which does not exist. hint: declare it" in refused([], ITEM)
    others = refused([ITEMS], SEEN, {**ITEM, "table": "itens"})
    assert "field item names table itens, which does not exist. known: items" in others


def test_a_table_that_no_field_reads_is_refused():
    assert 'table items is read by no field. hint: remove it, or write table = "items" in a field' in refused(
        [ITEMS], USER
    )


def test_a_table_with_the_name_of_a_field_that_has_its_own_is_refused():
    problems = refused([{"name": "user"}], USER, {**ITEM, "table": "user"})
    assert 'table user has the name of a field with a table of its own. hint: rename it, or write table = "user"' in (
        problems
    )


def test_a_field_may_read_a_declared_table_of_its_name():
    assert config_of([{"name": "user"}], {**USER, "dim": 16, "table": "user"}).fields[0].table_name == "user"


def test_a_table_declared_twice_is_refused():
    assert "table items is declared twice" in refused([ITEMS, ITEMS], ITEM)


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("name", "Items", "tables.0.name"),
        ("name", None, "tables.0.name"),
        ("dim", 0, "tables.0.dim"),
        ("dim", 1025, "tables.0.dim"),
        ("init_scale", -0.1, "tables.0.init_scale"),
        ("optimizer", {"kind": "rmsprop"}, "tables.0.optimizer: kind is one of sgd"),
        ("admission", {"threshold": 0}, "tables.0.admission.threshold"),
        ("expiry", {"ttl_s": 0}, "tables.0.expiry.ttl_s"),
        ("pooling", "mean", "tables.0.pooling: unknown key"),
    ],
)
def test_a_wrong_setting_of_a_table_is_named(setting, value, problem):
    assert problem in refused([{**ITEMS, setting: value}], ITEM)


def test_a_field_names_one_table_by_text():
    assert "fields.0.table" in refused([ITEMS], {**ITEM, "table": 3})


@pytest.mark.parametrize("bits", [8, 4, 2, 1, "ternary"])
def test_a_table_may_be_trained_for_few_bits(bits):
    config = config_of([{**ITEMS, "quantise": bits, "quantise_below": 3}], {**USER, "quantise": bits}, ITEM)
    assert [(field.quantise, field.quantise_below) for field in config.fields] == [(bits, None), (bits, 3.0)]
    assert tables_of(config.fields)["items"].quantise == bits
    assert config_of([], {**USER, "quantise": "off"}).fields[0].quantise is None


@pytest.mark.parametrize("bits", [16, 32, 3, 0, -1, "4", "binary", True, 4.0, [4]])
def test_other_bits_are_refused(bits):
    assert "tables.0.quantise" in refused([{**ITEMS, "quantise": bits}], ITEM)
    assert "fields.0.quantise" in refused([], {**USER, "quantise": bits})


def test_an_importance_without_bits_is_refused():
    problem = "quantise_below 3 has no effect without quantise. hint: set quantise, or remove it"
    assert problem in refused([{**ITEMS, "quantise_below": 3}], ITEM)
    assert problem in refused([], {**USER, "quantise_below": 3})
    for below in (0, -1, 1e17, "all"):
        assert "quantise_below" in refused([], {**USER, "quantise": 4, "quantise_below": below})
