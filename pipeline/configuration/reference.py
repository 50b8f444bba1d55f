"""The reference of `springtide.toml` as Markdown, generated from the classes of this folder.

Types, defaults and bounds are read from pydantic's JSON schema, meanings from the docstrings under the attributes. The
page is `runbooks/configuration.md`; a test compares the two.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.configuration.config import Config
from pipeline.configuration.section import Secret, Section

_HEAD = """\
# Configuration reference

Every setting of `springtide.toml`. `springtide config reference` generates this page.

A table that is left out has its defaults; only `[events]` and one of `[[fields]]` are required. An unknown key is
refused. Where the type allows it, `"off"` disables a setting; that is also what "not set" means. Names that end in `_s`
are seconds, in `_ms` milliseconds, in `_bytes` bytes. `springtide config check` reports all problems of a file at once.
"""
_JSON_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}
_BOUNDS = {
    "exclusiveMinimum": "> {}", "minimum": "≥ {}", "exclusiveMaximum": "< {}", "maximum": "≤ {}",
    "minLength": "not shorter than {}", "maxLength": "not longer than {}",
    "minItems": "{} or more", "maxItems": "{} or less", "pattern": "matches `{}`",
}  # fmt: skip
"""By property of JSON schema."""

_LENGTHS = ("minItems", "maxItems")
_GROUPED = 10_000
"""Numbers from here on are written with separators."""

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        table: its table in the file, such as `logs`; empty for the top of the file.
        name: its key in the table.
        kind: its type in words.
        default: as it would be written in the file, or "required" or "not set".
        bounds: of its values; empty for none.
        meaning: what it does.
    """

    table: str
    name: str
    kind: str
    default: str
    bounds: str
    meaning: str


@dataclass(frozen=True)
class TableOfSettings:
    """One table of the file: its name, its heading, what it is for, and its settings."""

    name: str
    heading: str
    purpose: str
    settings: tuple[Setting, ...]


def reference_text() -> str:
    """The reference as Markdown."""
    return "\n".join([_HEAD, *map(_table_text, reference_tables())])


def reference_tables() -> list[TableOfSettings]:
    """All tables of the file, in the order of the classes; one that several tables contain is listed once."""
    schema = Config.model_json_schema()
    return list(dict.fromkeys(_tables(Config, "", "Top of the file", schema, schema["$defs"])))


def _tables(
    section: type[Section], path: str, heading: str, schema: Node, definitions: Node
) -> Iterator[TableOfSettings]:
    """The table of one class, then those inside it."""
    meanings, settings, inner = _meanings(section), [], []
    for name, node in schema["properties"].items():
        found = list(_sections_in(node))
        if found:
            inner += [(f"{path}{name}", node, each) for each in found]
        else:
            meaning = meanings.get(name, "")
            required = name in schema.get("required", ())
            settings.append(_setting(path.rstrip("."), name, node, required, meaning))
    if section.named_tables:
        inner.append((f"{path}NAME", {}, schema["additionalProperties"]["$ref"]))
    yield TableOfSettings(path.rstrip("."), heading, _purpose(section), tuple(settings))
    for name, node, reference in inner:
        title = reference.rsplit("/", 1)[-1]
        listed = node.get("type") == "array"
        opened = f"`[[{name}]]`" if listed else f"`[{name}]`"
        if "oneOf" in node:
            kinds = _kinds(definitions[title])
            owner = heading if heading.startswith("`[") else f"`[{path.rstrip('.')}]`"
            opened = f"`{name.rpartition('.')[2]}` of {owner}, kind {kinds}"
        yield from _tables(_section_class(title), f"{name}.", opened, definitions[title], definitions)


def _sections_in(node: Node) -> Iterator[str]:
    """References to the classes of tables in a property; a dictionary's values are no table of their own."""
    if "$ref" in node and not node["$ref"].endswith(f"/{Secret.__name__}"):
        yield node["$ref"]
    for each in (*node.get("oneOf", ()), *node.get("anyOf", ()), *_items(node)):
        yield from _sections_in(each)


def _items(node: Node) -> list[Node]:
    """The types of a list's items; of a list of fixed length, whose items are alike, the first."""
    fixed = node.get("prefixItems", [])[:1]
    return [node["items"]] if "items" in node else fixed


def _section_class(title: str) -> type[Section]:
    found, waiting = {}, [Section]
    while waiting:
        section = waiting.pop()
        found[section.__name__] = section
        waiting += section.__subclasses__()
    return found[title]


def _setting(table: str, name: str, node: Node, required: bool, meaning: str) -> Setting:
    default = "required" if required else _written(node.get("default"))
    return Setting(table, name, _kind(node), default, "; ".join(dict.fromkeys(_bounds(node))), meaning)


def _kind(node: Node) -> str:
    """The type of a value in words."""
    if "anyOf" in node or "oneOf" in node:
        either = node.get("anyOf") or node["oneOf"]
        kinds = [_kind(each) for each in either if each.get("type") != "null"]
        optional = len(kinds) < len(either)
        return " or ".join([*dict.fromkeys(kinds), *(['`"off"`'] if optional else [])])
    if "$ref" in node:
        return "`{ file = … }` or `{ env = … }`"
    if "enum" in node:
        return ", ".join(f"`{_written(value)}`" for value in node["enum"])
    if "const" in node:
        return f'`"{node["const"]}"`'
    if node.get("type") == "array":
        if "prefixItems" in node:
            return f"list of {len(node['prefixItems'])} × {_kind(node['prefixItems'][0])}"
        return f"list of {_kind(node['items'])}" if "items" in node else "list"
    if node.get("type") == "object":
        return f"table of {_kind(node['additionalProperties'])}"
    return _JSON_TYPES[node["type"]]


def _bounds(node: Node) -> Iterator[str]:
    for name, text in _BOUNDS.items():
        if name in node and not (name in _LENGTHS and "prefixItems" in node):
            yield text.format(_written(node[name]) if name != "pattern" else node[name])
    values = [node["additionalProperties"]] if isinstance(node.get("additionalProperties"), dict) else []
    for each in (*node.get("anyOf", ()), *node.get("oneOf", ()), *_items(node), *values):
        yield from _bounds(each)


def _written(value: Any) -> str:
    """A value as it is written in the file."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    grouped = "_" if abs(value) >= _GROUPED else ""
    return f"{value:{grouped}}" if isinstance(value, int) else f"{value:{grouped}.15g}"


def _kinds(definition: Node) -> str:
    node = definition["properties"]["kind"]
    return _kind({name: value for name, value in node.items() if name in ("enum", "const")}).replace(", ", " or ")


def _purpose(section: type[Section]) -> str:
    """The docstring of a class without the name of its table, which the heading has."""
    text = " ".join(inspect.cleandoc(section.__doc__ or "").split())
    text = re.sub(r"^(`\[[^`]*`(?: and `\[[^`]*`)?: )", "", text)
    return text[:1].upper() + text[1:]


def _meanings(section: type[Section]) -> dict[str, str]:
    """By attribute, also of the classes it is derived from, the docstring under it; Python does not keep these."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    meanings = {} if section.__base__ in (None, Section) else _meanings(section.__base__)
    for attribute, text in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(attribute, ast.AnnAssign)
            and isinstance(attribute.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            meanings[attribute.target.id] = " ".join(str(text.value.value).split())
    return meanings


def _table_text(table: TableOfSettings) -> str:
    rows = [
        f"| `{s.name}` | {s.kind} | {s.default if s.default in ('required', 'not set') else f'`{s.default}`'} "
        f"| {_cell(s.bounds)} | {_cell(s.meaning)} |"
        for s in table.settings
    ]
    head = ["| setting | type | default | bounds | meaning |", "|---|---|---|---|---|"] if rows else []
    return "\n".join(
        [f"## {table.heading}", "", table.purpose, "", *head, *rows, ""]
        if rows
        else [f"## {table.heading}", "", table.purpose, ""]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
