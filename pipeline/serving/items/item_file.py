"""The file of the items: a JSON object of raw columns in each line, under a name of its own.

It is replaced by a rename: a file that is written in place may be read in part.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.recall.item_changes import ItemName, name_of

Stamp = tuple[int, int, int]
"""Of a file: time of its last change, size, inode."""


@dataclass(frozen=True)
class Items:
    """n items in the order of the file."""

    names: list[ItemName]
    """The value of the item column of each."""
    columns: list[dict[str, Any]]
    """The raw columns of each."""
    lines: list[int]
    """The line of each, from 1."""


def read_items(path: Path, column: str) -> Items:
    """The items of a file, each named by its value of `column`. Empty lines are skipped.

    Raises:
        InputError: the file cannot be read, is empty, or a line is not an object with a name of its own.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # others end no line in JSON
    except (OSError, UnicodeDecodeError) as failure:
        raise _unreadable(path, failure) from None
    found: dict[ItemName, dict[str, Any]] = {}
    places: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        item = _item_of(line, f"{path.name}, line {number}")
        try:
            name = name_of(item, column)
        except InputError as failure:
            raise InputError(f"{path.name}, line {number}: {failure}") from None
        if name in found:
            raise InputError(f"{path.name}, line {number}: {column} {name!r} is there twice. hint: keep one of them")
        found[name] = item
        places.append(number)
    if not found:
        raise InputError(f"{path} has no items. hint: a JSON object in each line")
    return Items(list(found), list(found.values()), places)


def stamp_of(path: Path) -> Stamp:
    """What differs once the file was replaced. Raises InputError if it cannot be read."""
    try:
        status = path.stat()
    except OSError as failure:
        raise _unreadable(path, failure) from None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _unreadable(path: Path, failure: Exception) -> InputError:
    return InputError(f"items cannot be read from {path}: {failure}. hint: set recall.items")


def _item_of(line: str, where: str) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as failure:
        raise InputError(f"{where} is not json: {failure}") from None
    if not isinstance(item, dict):
        raise InputError(f"{where}: got {type(item).__name__}, wanted an object of raw columns")
    return item
