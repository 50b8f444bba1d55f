"""Appends files of items to the items topic: a JSON object per line, as `recall/item_changes.py` describes it.

All files are read and checked before the first record is appended. The last change of an item counts, so a file that is
appended twice, or again after an interruption, leaves the same items.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.errors import ConfigError, InputError
from pipeline.features.plan import FeaturePlan
from pipeline.logs.interface.log import Log
from pipeline.recall.item_changes import ItemChange, change_of, encode_changes

_ITEMS_PER_RECORD = 1_000
_RECORD_BYTES = 512 << 10
"""A broker accepts records of up to 1 MiB by default."""


@dataclass(frozen=True)
class ItemReport:
    """How many lines put an item, and how many remove one."""

    put: int
    removed: int


def ingest_items(project: Project, log: Log | None, paths: Sequence[Path]) -> ItemReport:
    """Append the changes of all files in their order; with `log` None nothing is appended.

    Raises:
        ConfigError: the project has no items topic.
        InputError: a line is wrong; nothing is appended.
    """
    config = project.config
    if config.recall is None or config.recall.topic is None or config.towers is None:
        raise ConfigError("there is no topic of items. hint: set recall.topic")
    column, topic = config.towers.item_column, config.recall.topic
    plan, now_ms = FeaturePlan(config, project.root), project.clock.now_ms()
    lines = [line for path in paths for line in _lines(path, column)]
    for first in range(0, len(lines), _ITEMS_PER_RECORD):
        _check(plan, lines[first : first + _ITEMS_PER_RECORD], now_ms)
    changes = [change for _, change in lines]
    if log is not None:
        for value in _records(changes, column):
            log.append(topic, 0, [value])
    removed = sum(change.columns is None for change in changes)
    return ItemReport(len(changes) - removed, removed)


def _lines(path: Path, column: str) -> Iterator[tuple[str, ItemChange]]:
    """The changes of a file, each with its place for errors; empty lines are skipped. Raises InputError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(f"items cannot be read from {path}: {failure}. hint: a JSON object in each line") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        try:
            yield place, change_of(json.loads(line), column)
        except ValueError as failure:
            raise InputError(f"{place} is not json: {failure}") from None
        except InputError as failure:
            raise InputError(f"{place}: {failure}") from None


def _check(plan: FeaturePlan, lines: Sequence[tuple[str, ItemChange]], now_ms: int) -> None:
    """Raise InputError for the first line whose columns do not fit the configuration."""
    put = [(place, change.columns) for place, change in lines if change.columns is not None]
    try:
        plan.batch_of([columns for _, columns in put], now_ms)
    except InputError:
        for place, columns in put:
            try:
                plan.batch_of([columns], now_ms)
            except InputError as failure:
                problem = str(failure).removeprefix("instance 0").lstrip(", ")
                raise InputError(f"{place}: {problem}") from None
        raise


def _records(changes: Sequence[ItemChange], column: str) -> Iterator[bytes]:
    """The records of the changes: many changes each, unless they are large."""
    for first in range(0, len(changes), _ITEMS_PER_RECORD):
        some = changes[first : first + _ITEMS_PER_RECORD]
        value = encode_changes(some, column)
        if len(value) <= _RECORD_BYTES:
            yield value
        else:
            yield from (encode_changes([change], column) for change in some)
