"""Appends files of items to the items topic: a JSON object per line, as `recall/item_changes.py` describes it.

All files are read and checked before the first record is appended. Records carry the file they came from by its
content, and their number in it: a file that was appended before appends nothing, because its items may have changed
since, and one whose ingest was interrupted appends the rest.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.errors import ConfigError, InputError
from pipeline.features.plan import FeaturePlan
from pipeline.ingest.ledger import CHUNK_HEADER, FILE_HEADER
from pipeline.logs.interface.log import Log, read_to_end
from pipeline.recall.item_changes import ItemChange, change_of, encode_changes

_ITEMS_PER_RECORD = 1_000
_RECORD_BYTES = 512 << 10
"""A broker accepts records of up to 1 MiB by default."""


@dataclass(frozen=True)
class ItemReport:
    """How many lines put an item, and how many remove one, of the files that were not appended before."""

    put: int
    removed: int
    known: tuple[Path, ...]
    """Files that were appended before."""


def ingest_items(project: Project, log: Log | None, paths: Sequence[Path], again: bool = False) -> ItemReport:
    """Append the changes of all files in their order; with `log` None nothing is appended.

    With `again`, files that were appended before are appended once more.

    Raises:
        ConfigError: the project has no items topic.
        InputError: a line is wrong; nothing is appended.
    """
    config = project.config
    if config.recall is None or config.recall.topic is None or config.towers is None:
        raise ConfigError("there is no topic of items. hint: set recall.topic")
    column, topic = config.towers.item_column, config.recall.topic
    plan, now_ms = FeaturePlan(config, project.root), project.clock.now_ms()
    contents = {path: _content(path) for path in paths}
    files = {path: list(_lines(path, content, column)) for path, content in contents.items()}
    lines = [line for of_file in files.values() for line in of_file]
    for first in range(0, len(lines), _ITEMS_PER_RECORD):
        _check(plan, lines[first : first + _ITEMS_PER_RECORD], now_ms)
    known = []
    for path, of_file in files.items():
        values = list(_records([change for _, change in of_file], column))
        if log is not None and not _append(log, topic, hashlib.sha256(contents[path]).hexdigest(), values, again):
            known.append(path)
    changes = [change for path, of_file in files.items() if path not in known for _, change in of_file]
    removed = sum(change.columns is None for change in changes)
    return ItemReport(len(changes) - removed, removed, tuple(known))


def _append(log: Log, topic: str, digest: str, values: Sequence[bytes], again: bool) -> bool:
    """Append the records of a file that are not in the topic; whether there were any."""
    runs = _runs_of(log, topic, digest)
    run = max(runs, default=1)
    if again and runs.get(run, 0) == len(values):
        run += 1
    rest = range(runs.get(run, 0), len(values))
    for number in rest:
        log.append(topic, 0, [values[number]], headers={FILE_HEADER: f"{digest}-{run}", CHUNK_HEADER: str(number)})
    return bool(rest)


def _runs_of(log: Log, topic: str, digest: str) -> dict[int, int]:
    """By the number of an ingest of the file, how many of its records are in the topic. One record follows another."""
    found: dict[int, int] = {}
    for records in read_to_end(log, topic, 0):
        for record in records:
            name, _, run = record.headers.get(FILE_HEADER, "").partition("-")
            if name == digest:
                found[int(run)] = int(record.headers[CHUNK_HEADER]) + 1
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise _unreadable(path, failure) from None


def _unreadable(path: Path, failure: Exception) -> InputError:
    return InputError(f"items cannot be read from {path}: {failure}. hint: a JSON object in each line")


def _lines(path: Path, content: bytes, column: str) -> Iterator[tuple[str, ItemChange]]:
    """The changes of a file, each with its place for errors; empty lines are skipped. Raises InputError."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as failure:
        raise _unreadable(path, failure) from None
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
