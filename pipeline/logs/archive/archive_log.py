"""An archive of a log for backfill: read only, in Avro container files.

Layout: `TOPIC/PARTITION/FIRST.avro` (first offset, 20 digits; records of `archive_record.avsc`) and `TOPIC/topic.json`:
{log_id, partitions: [{begin, end, files: [{first, records, appended_at_ms}]}]}, where `appended_at_ms` is that of the
first record. The log_id is that of the archived log: an offset means the same record in both. `topic.json` is replaced
after the files it lists are complete; other files are ignored.
"""

import bisect
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import fastavro
from pydantic import TypeAdapter

from pipeline.errors import DamagedError, LogError
from pipeline.formats.checksum import checksum, headers_text
from pipeline.logs.interface.checks import check_partition, check_start
from pipeline.logs.interface.log import Fence, Headers, ReadLimits, Record

_DEFAULT_LIMITS = ReadLimits()
_CONTENTS = "topic.json"
_FIELDS = ("offset", "appended_at_ms", "value", "headers", "key")
"""Of a record, in its order; files of earlier releases have no key."""


@dataclass(frozen=True)
class _File:
    first: int
    records: int
    appended_at_ms: int


@dataclass(frozen=True)
class _Partition:
    begin: int
    end: int
    files: tuple[_File, ...]


@dataclass(frozen=True)
class _Contents:
    log_id: str
    partitions: tuple[_Partition, ...]


_CONTENTS_TYPE = TypeAdapter(_Contents)


class ArchiveLog:
    """Thread-safe. Every change raises LogError, and reads ignore `wait_ms`: no record is ever added."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._cursors: dict[tuple[str, int, str], tuple[int, Iterator[Record]]] = {}
        self._cache: dict[str, tuple[tuple[int, int], _Contents]] = {}
        """By topic, with inode and modification time of the file."""
        self._closed = False

    def topics(self) -> list[str]:
        self._check_open()
        return sorted(path.parent.name for path in self._folder.glob(f"[!.]*/{_CONTENTS}"))

    def partitions(self, topic: str) -> int:
        return len(self._contents(topic).partitions)

    def log_id(self, topic: str) -> str:
        return self._contents(topic).log_id

    def begin_offset(self, topic: str, partition: int) -> int:
        return self._partition(topic, partition).begin

    def end_offset(self, topic: str, partition: int) -> int:
        return self._partition(topic, partition).end

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        part = self._partition(topic, partition)
        # The offset may lie inside the last file that begins before `at_ms`.
        index = bisect.bisect_left([file.appended_at_ms for file in part.files], at_ms)
        start = part.files[index - 1].first if index else part.begin
        for record in self._stream(topic, partition, part, start):
            if record.appended_at_ms >= at_ms:
                return max(record.offset, part.begin)
        return part.end

    def read(self, topic: str, partition: int, start: int, limits: ReadLimits = _DEFAULT_LIMITS) -> list[Record]:
        part, log_id = self._partition(topic, partition), self.log_id(topic)
        check_start(f"{topic}/{partition}", start, part.begin, part.end)
        source = self._pop_cursor((topic, partition, log_id), start) or self._stream(topic, partition, part, start)
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
        self._refuse(f"create topic {topic} with {partitions} partitions")

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
        keys: Sequence[bytes] | None = None,
    ) -> int:
        self._refuse(f"append {len(values)} records to {topic}/{partition}")

    def acquire_fence(self, topic: str, partition: int) -> Fence:
        self._refuse(f"acquire the fence of {topic}/{partition}")

    def trim(self, topic: str, partition: int, before: int) -> None:
        self._refuse(f"trim {topic}/{partition} before {before}")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._cursors.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"archive {self._folder} is closed. hint: open it again")

    def _refuse(self, what: str) -> NoReturn:
        raise LogError(f"archive {self._folder} is read only, cannot {what}. hint: set logs.engine to sqlite")

    def _contents(self, topic: str) -> _Contents:
        self._check_open()
        path = self._folder / topic / _CONTENTS
        state = path.stat() if path.exists() else None
        version = (state.st_ino, state.st_mtime_ns) if state else (0, 0)
        with self._lock:
            if self._cache.get(topic, (None, None))[0] != version:
                self._cache[topic] = version, _read_contents(self._folder / topic)
            return self._cache[topic][1]

    def _partition(self, topic: str, partition: int) -> _Partition:
        parts = self._contents(topic).partitions
        check_partition(topic, partition, len(parts))
        return parts[partition]

    def _pop_cursor(self, key: tuple[str, int, str], start: int) -> Iterator[Record] | None:
        """The iterator of an earlier read that ended at `start`: it continues inside its file."""
        with self._lock:
            at, source = self._cursors.pop(key, (-1, iter(())))
        following = next(source, None) if at == start else None
        return itertools.chain([following], source) if following else None

    def _stream(self, topic: str, partition: int, part: _Partition, start: int) -> Iterator[Record]:
        index = max(bisect.bisect_right([file.first for file in part.files], start) - 1, 0)
        for file in part.files[index:]:
            for record in _read_file(self._folder / topic / str(partition) / f"{file.first:020}.avro", file):
                if start <= record.offset < part.end:
                    yield record


def _read_file(path: Path, file: _File) -> Iterator[Record]:
    """The records of one file. Raises DamagedError if it is missing, truncated or changed."""
    count = 0
    try:
        with path.open("rb") as stream:
            rows: Any = fastavro.reader(stream)
            for row in rows:
                record = Record(*(row.get(name) for name in _FIELDS))
                offset, at_ms, value, headers, key = record
                if checksum(offset, at_ms, headers_text(headers), value, key) != row["checksum"]:
                    raise DamagedError(
                        f"record {record.offset} of {path} does not match its checksum. hint: restore it from a copy"
                    )
                count += 1
                yield record
    except DamagedError:
        raise
    except Exception as failure:  # for a damaged container fastavro raises exceptions of many types
        raise DamagedError(
            f"{path} is damaged: {failure or type(failure).__name__}. hint: restore it from a copy"
        ) from failure
    if count != file.records:
        raise DamagedError(
            f"{path} has {count} records, {_CONTENTS} lists {file.records}. hint: restore it from a copy"
        )


def _read_contents(folder: Path) -> _Contents:
    path = folder / _CONTENTS
    try:
        return _CONTENTS_TYPE.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise LogError(
            f"topic {folder.name} does not exist in archive {folder.parent}. hint: check logs.path and the topic's name"
        ) from None
    except ValueError as failure:
        raise DamagedError(f"{path} is damaged: {failure!r}. hint: restore it from a copy") from failure
