"""Changes of items as the items topic has them: a JSON object per item, or a list of them in one record.

    {"item": 7, "price": 2.5}            item 7 is new, or has these columns instead of those before
    {"item": 7, "$removed": true}        item 7 is removed

An item is named by its value of the item column. A `$` cannot occur in the name of a column.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InputError

REMOVED = "$removed"

ItemName = int | str


@dataclass(frozen=True)
class ItemChange:
    """The new state of an item."""

    name: ItemName
    columns: dict[str, Any] | None
    """The raw columns; None if the item is removed."""


def change_of(item: Any, column: str) -> ItemChange:
    """The change that a JSON value states, of the item named by `column`.

    Raises:
        InputError: it is no object with a name, or a removal has other columns.

    >>> change_of({"item": 7, "$removed": True}, "item")
    ItemChange(name=7, columns=None)
    """
    if not isinstance(item, dict):
        raise InputError(f"got {type(item).__name__}, wanted an object of raw columns")
    name = name_of(item, column)
    if REMOVED not in item:
        return ItemChange(name, item)
    if item[REMOVED] is not True or len(item) != 2:
        raise InputError(f'a removal is {{"{column}": {json.dumps(name)}, "{REMOVED}": true}}, got {json.dumps(item)}')
    return ItemChange(name, None)


def name_of(item: dict[str, Any], column: str) -> ItemName:
    """The name of an item.

    >>> name_of({"itme": 7}, "item")
    Traceback (most recent call last):
    ...
    pipeline.errors.InputError: item is None, wanted a text or an integer. the columns are: itme
    """
    name = item.get(column)
    if not isinstance(name, ItemName) or isinstance(name, bool):
        known = ", ".join(map(str, item)) or "none"
        raise InputError(f"{column} is {name!r}, wanted a text or an integer. the columns are: {known}")
    return name


def decode_changes(value: bytes, column: str) -> tuple[list[ItemChange], list[str]]:
    """The changes of a record in their order, and what is wrong with those that are left out.

    >>> decode_changes(b'[{"item": 7}, {"price": 1}]', "item")
    ([ItemChange(name=7, columns={'item': 7})], ['item is None, wanted a text or an integer. the columns are: price'])
    """
    try:
        content = json.loads(value)
    except (ValueError, RecursionError) as failure:
        return [], [f"the record is not json: {failure}"]
    changes, problems = [], []
    for item in content if isinstance(content, list) else [content]:
        try:
            changes.append(change_of(item, column))
        except InputError as failure:
            problems.append(str(failure))
    return changes, problems


def encode_changes(changes: Sequence[ItemChange], column: str) -> bytes:
    """The record of some changes.

    >>> encode_changes([ItemChange(7, None)], "item")
    b'[{"item": 7, "$removed": true}]'
    """
    items = [{column: c.name, REMOVED: True} if c.columns is None else c.columns for c in changes]
    return json.dumps(items, ensure_ascii=False).encode()
