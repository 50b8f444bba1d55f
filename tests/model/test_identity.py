"""What a version was trained under: pieces that earlier versions have keep their text, and which tables keep rows."""

import json
from typing import Any

import pytest

from pipeline.features.plan import FeaturePlan
from pipeline.model.dense import DenseModel
from pipeline.model.identity import differences, identity_of, unchanged_tables
from tests.support.shop.shop import WRITTEN, make_project

EXPIRY = {"ttl_s": None, "budget_bytes": None, "sweep_every_s": 600.0}
OFF = {
    "kind": "off", "threshold": 2, "probability": 0.1, "sketch_width": 65536, "sketch_depth": 4,
    "halve_every_s": 86400.0,
}  # fmt: skip
ROWS = {
    "init_scale": 0.01,
    "optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.05, "initial_accumulator": 0.1},
    "admission": OFF,
    "expiry": EXPIRY,
}
USER = {
    "name": "user", "columns": ["user"], "transform": "value", "boundaries": [], "dim": 4, "pooling": "sum", **ROWS
}  # fmt: skip
"""As version files have it since the first release."""
AS_EVER, OTHERWISE = (
    json.dumps(["value", ["user"], ["int"], [], None]),
    json.dumps(["hour", ["user"], ["int"], [], None]),
)
LONGER = json.dumps(["value", ["user"], ["int"], [], None, {"max_length": 9, "keep": "last"}])


def own(name: str, **settings: Any) -> dict[str, str]:
    """The pieces of a field with a table of its own."""
    return {f"field {name}": json.dumps(USER | {"name": name} | settings), f"input {name}": AS_EVER}


def reader(name: str, table: str, **settings: Any) -> dict[str, str]:
    """The pieces of a field that names its table."""
    written = {key: value for key, value in USER.items() if key not in ("dim", *ROWS)}
    piece = json.dumps(written | {"name": name, "table": table} | settings)
    return {f"field {name}": piece, f"input {name}": AS_EVER}


def declared(name: str, **settings: Any) -> dict[str, str]:
    return {f"table {name}": json.dumps({"name": name, "dim": 4, **ROWS} | settings)}


def test_the_piece_of_a_field_with_its_own_table_never_changes(tmp_path):
    shared = {"name": "seen", "columns": ["tags"], "table": "goods", "pooling": "mean"}
    written = WRITTEN | {"tables": [{"name": "goods", "dim": 2}], "fields": [WRITTEN["fields"][0], shared]}
    project = make_project(tmp_path, written)
    pieces = identity_of(project.config, FeaturePlan(project.config, tmp_path), DenseModel(project.config, tmp_path))
    assert pieces["field user"] == json.dumps(USER, separators=(",", ":"))
    assert json.loads(pieces["table goods"]) == {"name": "goods", "dim": 2, **ROWS}
    named = json.loads(pieces["field seen"])
    assert named["table"] == "goods"
    assert not {"dim", *ROWS} & set(named)
    written["fields"] = [WRITTEN["fields"][0] | {"quantise": "ternary"}, shared]
    written["tables"] = [{"name": "goods", "dim": 2, "quantise": 4, "quantise_below": 0.5}]
    project = make_project(tmp_path, written)
    changed = identity_of(project.config, FeaturePlan(project.config, tmp_path), DenseModel(project.config, tmp_path))
    assert json.loads(changed["field user"]) == USER | {"quantise": "ternary"}
    assert json.loads(changed["table goods"])["quantise_below"] == 0.5
    assert differences(pieces, changed) == ["field user changed", "table goods changed"]


A, B = reader("a", "t"), reader("b", "t")


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        (own("user"), own("user"), {"user"}),
        (own("user"), own("user", dim=5), set()),
        # What a field does with the rows of its keys does not concern them.
        (own("user"), own("user", pooling="mean"), {"user"}),
        (own("user"), own("user", pooling="none", max_length=9, keep="last") | {"input user": LONGER}, {"user"}),
        (own("user"), own("user", weights="ages"), {"user"}),
        (own("user"), own("user", columns=["item"]), set()),
        (own("user"), own("user") | {"input user": OTHERWISE}, set()),
        (own("user"), own("item"), set()),
        # A field of its own table declares it, and back.
        (own("t"), declared("t") | reader("t", "t"), {"t"}),
        (declared("t") | reader("t", "t"), own("t"), {"t"}),
        (own("t"), declared("t", dim=8) | reader("t", "t"), set()),
        # Fields come and go.
        (declared("t") | A, declared("t") | A | B, {"t"}),
        (declared("t") | A | B, declared("t") | B, {"t"}),
        (declared("t") | A, declared("t") | B, set()),
        (declared("t") | A | B, declared("t") | A | reader("b", "t", pooling="mean"), {"t"}),
        (declared("t") | A, declared("t") | reader("a", "t", pooling="max"), {"t"}),
        (declared("t") | A, declared("t") | A | {"input a": OTHERWISE}, set()),
        # The table changes, or the field reads another one.
        (declared("t") | A, declared("t", init_scale=0.02) | A, set()),
        (declared("t") | A, declared("s") | reader("a", "s"), set()),
        # Rows are of full precision, whatever they are rounded to.
        (own("user"), own("user", quantise=4), {"user"}),
        (own("user", quantise=4), own("user", quantise="ternary", quantise_below=2.0), {"user"}),
        (declared("t", quantise=1) | A, declared("t") | A, {"t"}),
        (declared("t") | A, own("a"), set()),
    ],
)
def test_a_table_keeps_its_rows_if_its_settings_and_a_reader_are_as_before(before, now, kept):
    assert unchanged_tables(before, now) == kept
