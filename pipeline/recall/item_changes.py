"""Changes of items as the items topic has them: a record with the item's name as key, and a JSON object as value.

    key 7    {"item": 7, "price": 2.5}    item 7 is new, or has these columns instead of those before
    key 7                                 without a value: item 7 is removed, which a compacted topic forgets
    key 7    {"item": 7, "$removed": true}    item 7 is removed, which a compacted topic keeps

A name is the value of the item column, a text or an integer; the key is its JSON, with characters beyond ASCII as they
are: Kafka's compaction compares bytes. Records without a key are accepted too: they hold such an object, or a list of
them. A `$` cannot occur in the name of a column.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InputError, ModelError

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
        given = ", ".join(map(ascii, item))
        raise InputError(f'a removal is {{"{column}": {json.dumps(name)}, "{REMOVED}": true}}, got the columns {given}')
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
    if isinstance(name, str) and not _encodable(name):
        raise InputError(f"{column} is {name!a}, which is no text of unicode characters")
    return name


def key_of(name: ItemName) -> bytes:
    """The key of the records of an item.

    >>> key_of(7), key_of("7")
    (b'7', b'"7"')
    """
    return json.dumps(name, ensure_ascii=False).encode()


def decode_changes(value: bytes, column: str, key: bytes | None = None) -> tuple[list[ItemChange], list[str]]:
    """The changes of a record in their order, and what is wrong with those that are left out.

    >>> decode_changes(b'[{"item": 7}, {"price": 1}]', "item")
    ([ItemChange(name=7, columns={'item': 7})], ['item is None, wanted a text or an integer. the columns are: price'])
    >>> decode_changes(b"", "item", b"7")
    ([ItemChange(name=7, columns=None)], [])
    >>> decode_changes(b'{"item": 7}', "item", b"8")
    ([], ['item 7 has the key 8, wanted 7'])
    """
    if key is not None and not value:
        return _removal(key)
    try:
        content = json.loads(value)
    except (ValueError, RecursionError) as failure:
        return [], [f"the record is not json: {failure}"]
    changes, problems = [], []
    for item in content if isinstance(content, list) else [content]:
        try:
            change = change_of(item, column)
            if key is not None and key != key_of(change.name):
                shown, wanted = key.decode("utf-8", "replace"), key_of(change.name).decode()
                raise InputError(f"item {change.name!r} has the key {shown}, wanted {wanted}")
            changes.append(change)
        except InputError as failure:
            problems.append(str(failure))
    return changes, problems


def first_problem(items: Sequence[Any], read: Callable[[Sequence[Any]], object]) -> tuple[int, str] | None:
    """The place of the first item for which `read` of it alone fails, and why; None if there is none."""
    for place, item in enumerate(items):
        try:
            read([item])
        except (InputError, ModelError) as failure:
            return place, str(failure).removeprefix("instance 0").lstrip(", :")
    return None


def encode_change(change: ItemChange, kept_as: str | None = None) -> bytes:
    """The value of the record of a change, which has the key of its name.

    A removal is a tombstone, which a compacted topic forgets after a while. With `kept_as`, the item column, it is an
    object, which the topic keeps as it keeps items.

    >>> encode_change(ItemChange(7, {"item": 7})), encode_change(ItemChange(7, None))
    (b'{"item": 7}', b'')
    >>> encode_change(ItemChange(7, None), "item")
    b'{"item": 7, "$removed": true}'
    """
    if change.columns is None and kept_as is None:
        return b""
    columns = {kept_as: change.name, REMOVED: True} if change.columns is None else change.columns
    return json.dumps(columns, ensure_ascii=False).encode()


def _removal(key: bytes) -> tuple[list[ItemChange], list[str]]:
    """Of a key in the form of `key_of` alone: others would be other keys to a compacted topic."""
    try:
        name = json.loads(key)
        if isinstance(name, ItemName) and not isinstance(name, bool) and key_of(name) == key:
            return [ItemChange(name, None)], []
    except (ValueError, RecursionError):
        pass
    return [], [f"the key of a removal is {key.decode('utf-8', 'replace')}, wanted the name of an item as json"]


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a half of a surrogate pair, which JSON can escape
        return False
    return True
