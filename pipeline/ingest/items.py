"""Appends files of items to the items topic: a JSON object per line, as `recall/item_changes.py` describes it.

All files are read and checked before the first record is appended. Up to a thousand changes, a record each, are
appended together with a record that names the file by its content and has how many of its changes are in the topic: a
file that was appended before appends nothing, because its items may have changed since, and one whose ingest was
interrupted appends the rest. The key of that record is the file's, so a compacted topic keeps its last one. An ingest
holds the fence of the topic: one that begins ends those before it, so that no two append by the same progress.

If the project has a file of items too, a removal is a record that a compacted topic keeps: after a tombstone was
forgotten, the item of the file would be found again.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.errors import ConfigError, InputError
from pipeline.features.plan import FeaturePlan
from pipeline.ingest.ledger import CHUNK_HEADER, FILE_HEADER
from pipeline.logs.interface.log import Fence, Log, read_to_end
from pipeline.recall.item_changes import ItemChange, change_of, encode_change, first_problem, key_of

_ITEMS_AT_ONCE = 1_000
_BYTES_AT_ONCE = 512 << 10
"""A broker accepts batches of up to 1 MiB by default."""
_NO_CHANGE = b"[]"


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
        FencedError: another ingest of items has begun.
    """
    config = project.config
    if config.recall is None or config.recall.topic is None or config.towers is None:
        raise ConfigError("there is no topic of items. hint: set recall.topic")
    column, topic = config.towers.item_column, config.recall.topic
    plan, now_ms = FeaturePlan(config, project.root), project.clock.now_ms()
    contents = {path: _content(path) for path in paths}
    files = {path: list(_lines(path, content, column)) for path, content in contents.items()}
    lines = [line for of_file in files.values() for line in of_file]
    for first in range(0, len(lines), _ITEMS_AT_ONCE):
        _check(plan, lines[first : first + _ITEMS_AT_ONCE], now_ms)
    known = []
    fence = None if log is None else log.acquire_fence(topic, 0)
    kept_as = None if config.recall.items is None else column  # a removal that is forgotten leaves the file's item
    for path, of_file in files.items():
        records = [(key_of(change.name), encode_change(change, kept_as)) for _, change in of_file]
        digest = hashlib.sha256(contents[path]).hexdigest()
        if log is not None and fence is not None and records and not _append(log, fence, digest, records, again):
            known.append(path)
    changes = [change for path, of_file in files.items() if path not in known for _, change in of_file]
    removed = sum(change.columns is None for change in changes)
    return ItemReport(len(changes) - removed, removed, tuple(known))


def _append(log: Log, fence: Fence, digest: str, changes: Sequence[tuple[bytes, bytes]], again: bool) -> bool:
    """Append the changes of a file, keys and values, that are not in the topic; whether there were any."""
    key = f"file {digest}".encode()
    run, appended = _progress(log, fence.topic, key)
    if again and appended == len(changes):
        run, appended = run + 1, 0
    any_left = appended < len(changes)
    while appended < len(changes):
        some = _at_once(changes[appended : appended + _ITEMS_AT_ONCE])
        appended += len(some)
        own = {FILE_HEADER: f"{digest}-{run}", CHUNK_HEADER: str(appended)}
        keys, values = zip(*some, (key, _NO_CHANGE), strict=True)
        log.append(fence.topic, 0, values, fence=fence, headers=[*({} for _ in some), own], keys=keys)
    return any_left


def _progress(log: Log, topic: str, key: bytes) -> tuple[int, int]:
    """The number of the last ingest of the file with this key, and how many of its changes are in the topic."""
    run, appended = 1, 0
    for records in read_to_end(log, topic, 0):
        for record in records:
            if record.key == key and CHUNK_HEADER in record.headers:
                run, appended = int(record.headers[FILE_HEADER].partition("-")[2]), int(record.headers[CHUNK_HEADER])
    return run, appended


def _at_once(changes: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
    """The first of these changes that are small enough to be appended together, at least one."""
    sizes = list(accumulate(len(value) for _, value in changes))
    return changes[: max(1, bisect_right(sizes, _BYTES_AT_ONCE))]


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
        lines = content.decode("utf-8-sig").split("\n")  # others end no line in JSON
    except UnicodeDecodeError as failure:
        raise _unreadable(path, failure) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        try:
            yield place, change_of(json.loads(line), column)
        except (ValueError, RecursionError) as failure:
            raise InputError(f"{place} is not json: {failure}") from None
        except InputError as failure:
            raise InputError(f"{place}: {failure}") from None


def _check(plan: FeaturePlan, lines: Sequence[tuple[str, ItemChange]], now_ms: int) -> None:
    """Raise InputError for the first line whose columns do not fit the configuration."""
    put = [(place, change.columns) for place, change in lines if change.columns is not None]
    try:
        plan.batch_of([columns for _, columns in put], now_ms)
    except InputError:
        wrong = first_problem([columns for _, columns in put], lambda some: plan.batch_of(some, now_ms))
        if wrong is None:
            raise
        raise InputError(f"{put[wrong[0]][0]}: {wrong[1]}") from None
