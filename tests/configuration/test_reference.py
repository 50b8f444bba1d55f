"""The reference of the configuration: complete, up to date, and its defaults are those of the classes."""

import re
from pathlib import Path

import pytest

from pipeline.configuration.config import Config
from pipeline.configuration.reference import reference_tables, reference_text
from pipeline.configuration.section import Section

PAGE = Path(__file__).parents[2] / "runbooks" / "configuration.md"
TABLES = reference_tables()
SETTINGS = [setting for table in TABLES for setting in table.settings]


def written(table, name, kind=""):
    """The one setting of a table, of the optimizer `kind` if given."""
    (found,) = [s for t in TABLES for s in t.settings if (s.table, s.name) == (table, name) and kind in t.heading]
    return found


def test_the_page_is_up_to_date():
    hint = "run: springtide config reference > runbooks/configuration.md"
    assert PAGE.read_text(encoding="utf-8") == reference_text(), hint


def test_every_class_of_settings_is_in_the_reference():
    named = {name for table in TABLES for name in re.findall(r"\w+", table.heading)}
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            assert name in named
    for name in ("retention", "fields", "dense", "optimizer", "admission", "expiry", "hooks", "impressions", "clicks"):
        assert name in named


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.table}.{s.name}")
def test_every_setting_has_a_type_and_a_meaning(setting):
    assert setting.kind
    assert setting.meaning, f"write a docstring under {setting.name} in pipeline/configuration"


def test_types_defaults_and_bounds_are_those_of_the_classes():
    found = written("samples", "window_s")
    assert (found.kind, found.default, found.bounds) == ("number", "600", "≥ 0.001; ≤ 10_000_000_000")
    found = written("logs", "max_record_bytes")
    assert (found.kind, found.default, found.bounds) == ("integer", "33_554_432", "≥ 65_536; ≤ 1_073_741_824")
    found = written("logs", "engine")
    assert (found.kind, found.default) == ('`"sqlite"`, `"archive"`, `"kafka"`', '"sqlite"')
    found = written("train", "commit_every_log_s")
    assert (found.kind, found.default, found.bounds) == ('number or `"off"`', "600", "≥ 0.001; ≤ 10_000_000_000")
    found = written("serving", "port")
    assert (found.default, found.bounds) == ("8501", "≥ 0; ≤ 65_535")
    assert written("events", "key").default == "required"
    assert written("fields.optimizer", "learning_rate", "adam").default == "0.001"
    assert written("logs", "replication_factor").default == "not set"
    assert written("samples", "labels").default == '["label"]'
    assert "`{ file = … }`" in written("publish", "webhook").kind
