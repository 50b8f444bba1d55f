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
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.errors import ConfigError, FencedError, InputError
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


def ingest_items(
    project: Project, log: Log, paths: Sequence[Path], again: bool = False, dry_run: bool = False
) -> ItemReport:
    """Append the changes of all files in their order; a dry run appends nothing and reports the same.

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
    fence = None if dry_run else log.acquire_fence(topic, 0)
    kept_as = None if config.recall.items is None else column  # a removal that is forgotten leaves the file's item
    for path, of_file in files.items():
        records = [(key_of(change.name), encode_change(change, kept_as)) for _, change in of_file]
        progress = _progress(log, topic, hashlib.sha256(contents[path]).hexdigest())
        if records and not again and progress.appended == len(records):
            known.append(path)
        elif fence is not None:
            _append(log, fence, progress.again() if progress.appended == len(records) else progress, records, path)
    changes = [change for path, of_file in files.items() if path not in known for _, change in of_file]
    removed = sum(change.columns is None for change in changes)
    return ItemReport(len(changes) - removed, removed, tuple(known))


@dataclass(frozen=True)
class _Progress:
    """The number of the last ingest of the file with this digest, and how many of its changes are in the topic."""

    digest: str
    run: int
    appended: int

    @property
    def key(self) -> bytes:
        """That of the records with the progress of the file."""
        return f"file {self.digest}".encode()

    def again(self) -> "_Progress":
        """That of the next ingest of the file, before it appends."""
        return replace(self, run=self.run + 1, appended=0)


def _append(log: Log, fence: Fence, progress: _Progress, changes: Sequence[tuple[bytes, bytes]], path: Path) -> None:
    """Append the changes of a file, keys and values, that are not in the topic. Raises FencedError."""
    appended = progress.appended
    while appended < len(changes):
        some = _at_once(changes[appended : appended + _ITEMS_AT_ONCE])
        own = {FILE_HEADER: f"{progress.digest}-{progress.run}", CHUNK_HEADER: str(appended + len(some))}
        keys, values = zip(*some, (progress.key, _NO_CHANGE), strict=True)
        try:
            log.append(fence.topic, 0, values, fence=fence, headers=[*({} for _ in some), own], keys=keys)
        except FencedError:
            raise FencedError(
                f"{path} is appended up to change {appended} of {len(changes)}: another ingest of items of topic "
                f"{fence.topic} began later, another process writes this partition now. "
                "hint: run this again after that one has ended, it appends the rest"
            ) from None
        appended += len(some)


def _progress(log: Log, topic: str, digest: str) -> _Progress:
    """How much of the file with this digest is in the topic; nothing of it if there is no such topic."""
    progress = _Progress(digest, 1, 0)
    for records in read_to_end(log, topic, 0):
        for record in records:
            if record.key == progress.key and CHUNK_HEADER in record.headers:
                run, appended = record.headers[FILE_HEADER].partition("-")[2], record.headers[CHUNK_HEADER]
                progress = replace(progress, run=int(run), appended=int(appended))
    return progress


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
