"""Every piece of configuration on the page about models is valid beside a small project."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipeline.configuration.config import parse_config

PAGE = (Path(__file__).parents[2] / "runbooks" / "models.md").read_text(encoding="utf-8")
PIECES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
PROJECT = """
tables = [{ name = "items", dim = 16 }]
fields = [{ name = "user", columns = ["user"] }]

[events]
key = ["impression_id"]
clicks.columns = { impression_id = "string" }
purchase = { columns = { impression_id = "string" }, window_s = 600, horizon_s = 600 }
watch = { columns = { impression_id = "string", seconds = "float" }, window_s = 600, horizon_s = 600 }

[events.impressions.columns]
impression_id = "string"
request = "string"
user = "string"
item = "string"
bought = "strings"
history = "strings"
embedding = "floats"
"""


def project_with(piece: dict[str, Any]) -> dict[str, Any]:
    """The project's document with the piece: fields are added, events merged, what nothing names is left out."""
    document = tomllib.loads(PROJECT)
    fields, events = piece.pop("fields", []), piece.pop("events", {})
    document["fields"] += fields
    document |= piece
    document["events"] |= events
    if not any("table" in field for field in document["fields"]):
        del document["tables"]
    named = {label.get("event") for label in piece.get("labels", [])} | set(events)
    for kind in {"purchase", "watch"} - named:
        del document["events"][kind]
    return document


def test_the_page_has_pieces_of_every_kind():
    assert {kind for piece in PIECES for kind in tomllib.loads(piece)} == {
        "tables", "fields", "dense", "labels", "model", "events", "parts", "samples",
    }  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_a_piece_is_valid_and_honoured(piece):
    written = tomllib.loads(piece)
    parsed = parse_config(project_with(tomllib.loads(piece))).model_dump(mode="json", exclude_unset=True)
    for kind in written.keys() & {"tables", "dense", "labels", "parts"}:
        assert [entry["name"] for entry in parsed[kind]] == [entry["name"] for entry in written[kind]]
