"""An archive of a log for backfill: read only, Avro container files anybody can open.

Layout: `TOPIC/PARTITION/FIRST.avro` (first offset, 20 digits; records of `archive_record.avsc`) and `TOPIC/topic.json`:
{log_id, partitions: [{begin, end, files: [{first, records, appended_at_ms}]}]}. The log_id is that of the archived log,
for offsets mean the same in both. A file is complete before `topic.json` names it; files it does not name are ignored.
"""

import bisect
import itertools
import json
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import fastavro
from pydantic import TypeAdapter

from pipeline.errors import DamagedError, LogError, LogReplacedError
from pipeline.formats.checksum import checksum, headers_text
from pipeline.formats.schemas import load_schema
from pipeline.logs.checks import check_partition, check_start
from pipeline.logs.log import Fence, Headers, Log, ReadLimits, Record

_ONE_READ = ReadLimits()
_ONE_FILE = ReadLimits(records=10_000)
_CONTENTS = "topic.json"


@dataclass(frozen=True)
class _File:
    first: int
    records: int
    appended_at_ms: int


@dataclass(frozen=True)
class _Part:
    begin: int
    end: int
    files: tuple[_File, ...]


@dataclass(frozen=True)
class _Contents:
    log_id: str
    partitions: tuple[_Part, ...]


_CONTENTS_FORM = TypeAdapter(_Contents)


class ArchiveLog:
    """A log that only reads; every change raises LogError. Thread-safe. `wait_ms` is not waited: nothing will come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._cursors: dict[tuple[str, int, str], tuple[int, Iterator[Record]]] = {}
        self._seen: dict[str, tuple[tuple[str, int, int], _Contents]] = {}
        self._closed = False

    def topics(self) -> list[str]:
        self._check_open()
        return sorted(path.parent.name for path in self._folder.glob(f"[!.]*/{_CONTENTS}"))

    def partitions(self, topic: str) -> int:
        return len(self._contents(topic).partitions)

    def log_id(self, topic: str) -> str:
        return self._contents(topic).log_id

    def begin_offset(self, topic: str, partition: int) -> int:
        return self._part(topic, partition).begin

    def end_offset(self, topic: str, partition: int) -> int:
        return self._part(topic, partition).end

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        part = self._part(topic, partition)
        # The answer may lie inside the last file that begins before `at_ms`.
        index = bisect.bisect_left([file.appended_at_ms for file in part.files], at_ms)
        start = part.files[index - 1].first if index else part.begin
        for record in self._stream(topic, partition, part, start):
            if record.appended_at_ms >= at_ms:
                return max(record.offset, part.begin)
        return part.end

    def read(self, topic: str, partition: int, start: int, limits: ReadLimits = _ONE_READ) -> list[Record]:
        part, log_id = self._part(topic, partition), self.log_id(topic)
        check_start(f"{topic}/{partition}", start, part.begin, part.end)
        source = self._take_cursor((topic, partition, log_id), start) or self._stream(topic, partition, part, start)
        records: list[Record] = []
        total = 0
        for record in source:
            total += len(record.value)
            if records and total > limits.max_bytes:
                source = itertools.chain([record], source)
                break
            records.append(record)
            if len(records) >= limits.records:
                break
        if records:
            with self._lock:
                self._cursors[topic, partition, log_id] = records[-1].offset + 1, source
        return records

    def create_topic(self, topic: str, partitions: int) -> None:
        self._refuse(f"make topic {topic} with {partitions} partitions")

    def delete_topic(self, topic: str) -> None:
        self._refuse(f"delete topic {topic}")

    def append(
        self,
        topic: str,
        partition: int,
        values: Sequence[bytes],
        *,
        fence: Fence | None = None,
        headers: Headers | Sequence[Headers] | None = None,
    ) -> int:
        self._refuse(f"append {len(values)} records to {topic}/{partition}")

    def acquire_fence(self, topic: str, partition: int) -> Fence:
        self._refuse(f"take the fence of {topic}/{partition}")

    def trim(self, topic: str, partition: int, before: int) -> None:
        self._refuse(f"trim {topic}/{partition} before {before}")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._cursors.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"archive {self._folder} was closed. hint: open it again")

    def _refuse(self, what: str) -> NoReturn:
        raise LogError(f"archive {self._folder} is read only, cannot {what}. hint: logs.engine = 'sqlite' can")

    def _contents(self, topic: str) -> _Contents:
        self._check_open()
        path = self._folder / topic / _CONTENTS
        state = path.stat() if path.exists() else None
        seen = (topic, state.st_ino, state.st_mtime_ns) if state else (topic, 0, 0)
        with self._lock:
            if self._seen.get(topic, (None, None))[0] != seen:
                self._seen[topic] = seen, _read_contents(self._folder / topic)
            return self._seen[topic][1]

    def _part(self, topic: str, partition: int) -> _Part:
        parts = self._contents(topic).partitions
        check_partition(topic, partition, len(parts))
        return parts[partition]

    def _take_cursor(self, key: tuple[str, int, str], start: int) -> Iterator[Record] | None:
        """The half-read files that go on at just `start`: reading on need not skip again."""
        with self._lock:
            at, source = self._cursors.pop(key, (-1, iter(())))
        following = next(source, None) if at == start else None
        return itertools.chain([following], source) if following else None

    def _stream(self, topic: str, partition: int, part: _Part, start: int) -> Iterator[Record]:
        index = max(bisect.bisect_right([file.first for file in part.files], start) - 1, 0)
        for file in part.files[index:]:
            for record in _read_file(_path(self._folder / topic, partition, file.first), file):
                if start <= record.offset < part.end:
                    yield record


def write_archive(log: Log, topic: str, folder: Path, limits: ReadLimits = _ONE_FILE) -> int:
    """Copy what `folder` does not hold yet of a topic; returns the records copied. Each `limits` becomes one file.

    Raises LogReplacedError where the folder holds another making of the topic, LogError where it cannot be written.
    """
    target = folder / topic
    try:
        held = _read_contents(target) if (target / _CONTENTS).exists() else None
        if held is not None and held.log_id != log.log_id(topic):
            raise LogReplacedError(
                f"archive {target} is of log {held.log_id}, topic {topic} is {log.log_id(topic)}. hint: another folder"
            )
        copied = []
        for number in range(log.partitions(topic)):
            before = held.partitions[number] if held is not None else None
            copied.append(_copy_partition(log, target, number, before, limits))
        _write_durably(target / _CONTENTS, _contents_bytes(log.log_id(topic), copied))
    except OSError as failure:
        raise LogError(
            f"archive {target} cannot be written: {failure}. hint: free space there, then run again"
        ) from failure
    return sum(f.records for p in copied for f in p.files) - (
        sum(f.records for p in held.partitions for f in p.files) if held else 0
    )


def _copy_partition(log: Log, target: Path, number: int, held: _Part | None, limits: ReadLimits) -> _Part:
    topic, end = target.name, log.end_offset(target.name, number)
    begin = held.begin if held is not None else log.begin_offset(topic, number)
    at = held.end if held is not None else begin
    files = list(held.files) if held is not None else []
    while at < end and (records := log.read(topic, number, at, limits)):
        files.append(_write_file(target, number, records))
        at = records[-1].offset + 1
    return _Part(begin, max(at, end), tuple(files))


def _write_file(target: Path, number: int, records: Sequence[Record]) -> _File:
    def rows() -> Iterator[dict[str, Any]]:
        for offset, at_ms, value, headers in records:
            kept = checksum(offset, at_ms, headers_text(headers), value)
            yield {
                "offset": offset,
                "appended_at_ms": at_ms,
                "checksum": kept,
                "headers": dict(headers),
                "value": value,
            }

    path = _path(target, number, records[0].offset)
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with making.open("wb") as file:
        fastavro.writer(file, load_schema("archive_record").parsed, rows())
        _sync_and_rename(file, making, path)
    return _File(records[0].offset, len(records), records[0].appended_at_ms)


def _read_file(path: Path, file: _File) -> Iterator[Record]:
    """Records of one file. Raises DamagedError where it is missing, cut or changed."""
    count = 0
    try:
        with path.open("rb") as stream:
            rows: Any = fastavro.reader(stream)
            for row in rows:
                record = Record(row["offset"], row["appended_at_ms"], row["value"], row["headers"])
                found = checksum(record.offset, record.appended_at_ms, headers_text(record.headers), record.value)
                if found != row["checksum"]:
                    raise DamagedError(
                        f"record {record.offset} of {path} does not match its checksum. hint: archive it again"
                    )
                count += 1
                yield record
    except DamagedError:
        raise
    except Exception as failure:  # a damaged container makes fastavro raise whatever it stumbles over
        raise DamagedError(
            f"{path} is damaged: {failure or type(failure).__name__}. hint: archive it again"
        ) from failure
    if count != file.records:
        raise DamagedError(f"{path} holds {count} records, {_CONTENTS} says {file.records}. hint: archive it again")


def _read_contents(folder: Path) -> _Contents:
    path = folder / _CONTENTS
    try:
        return _CONTENTS_FORM.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise LogError(
            f"topic {folder.name} does not exist in archive {folder.parent}. hint: archive it first"
        ) from None
    except ValueError as failure:
        raise DamagedError(f"{path} is damaged: {failure!r}. hint: restore it from a copy") from failure


def _contents_bytes(log_id: str, parts: Sequence[_Part]) -> bytes:
    return json.dumps({"log_id": log_id, "partitions": [asdict(part) for part in parts]}, indent=1).encode()


def _write_durably(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with making.open("wb") as file:
        file.write(content)
        _sync_and_rename(file, making, path)


def _sync_and_rename(file: Any, making: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    making.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _path(target: Path, number: int, first: int) -> Path:
    return target / str(number) / f"{first:020}.avro"
