"""The embedded log: a folder of topics, each a folder with `topic.json` and one SQLite file per partition.

`topic.json` (`formats/sealed_json.py`) names the topic, its log_id and its number of partitions; every partition
repeats the log_id and its number. A topic appears and disappears by one rename, so a process never sees an incomplete
one.
"""

import shutil
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import DamagedError, LogError
from pipeline.files.atomic_file import sync_folder
from pipeline.formats.sealed_json import SealedJson
from pipeline.logs.interface.checks import (
    check_fence,
    check_log_of_fence,
    check_new_topic,
    check_partition,
    check_partition_count,
    new_records,
)
from pipeline.logs.interface.log import Fence, Headers, ReadLimits, Record
from pipeline.logs.sqlite.partition import Partition, create_partition
from pipeline.process.clock import Clock

_TOPIC_FILE_NAME = "topic.json"
_TOPIC_FILE = SealedJson("topic", 2, "restore the folder of the topic from a copy, or delete the topic")
_POLL_S = 0.002
_DEFAULT_LIMITS = ReadLimits()


class SqliteLog:
    """Thread-safe; any number of processes may share the folder. Cannot be used after a fork."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], Partition] = {}
        self._fenced: dict[Fence, str] = {}
        """With the log_id of the topic when the fence was acquired."""
        self._closed = False

    def create_topic(self, topic: str, partitions: int) -> None:
        check_new_topic(topic, partitions)
        if not self._folder_of(topic).exists():
            self._create(topic, partitions)
        check_partition_count(topic, self.partitions(topic), partitions)

    def topics(self) -> list[str]:
        self._check_open()
        if not self._folder.is_dir():
            return []
        return sorted(p.parent.name for p in self._folder.glob(f"[!.]*/{_TOPIC_FILE_NAME}"))

    def partitions(self, topic: str) -> int:
        self._check_open()
        return _read_topic_file(self._folder_of(topic)).partitions

    def log_id(self, topic: str) -> str:
        self._check_open()
        return _read_topic_file(self._folder_of(topic)).log_id

    def delete_topic(self, topic: str) -> None:
        self.partitions(topic)
        with self._lock:
            for key in [key for key in self._open if key[0] == topic]:
                self._open.pop(key).close()
        self._folder_of(topic).rename(self._folder / f".deleted-{uuid.uuid4().hex}")
        sync_folder(self._folder)
        for deleted in self._folder.glob(".deleted-*"):
            shutil.rmtree(deleted, ignore_errors=True)

    def begin_offset(self, topic: str, partition: int) -> int:
        return self._partition(topic, partition).begin_offset()

    def end_offset(self, topic: str, partition: int) -> int:
        return self._partition(topic, partition).end_offset()

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        return self._partition(topic, partition).offset_at(at_ms)

    def read(self, topic: str, partition: int, start: int, limits: ReadLimits = _DEFAULT_LIMITS) -> list[Record]:
        deadline_s = self._clock.monotonic_s() + limits.wait_ms / 1000
        while True:
            records = self._partition(topic, partition).read(start, limits)
            remaining_s = deadline_s - self._clock.monotonic_s()
            if records or remaining_s <= 0:
                return records
            # At least a millisecond: a manual clock rounds less to zero and would not advance.
            self._clock.wait(max(min(_POLL_S, remaining_s), 0.001))

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
        file = self._partition(topic, partition)
        if fence is not None:
            check_fence(fence, topic, partition)
            # Epochs restart in a topic that is created again, so an old fence could pass for a new one.
            check_log_of_fence(topic, file.log_id, self._fenced.get(fence, file.log_id))
        return file.append(new_records(values, headers, keys), self._clock.now_ms(), fence)

    def acquire_fence(self, topic: str, partition: int) -> Fence:
        file = self._partition(topic, partition)
        fence = Fence(topic, partition, file.raise_epoch())
        with self._lock:
            self._fenced[fence] = file.log_id
        return fence

    def trim(self, topic: str, partition: int, before: int) -> None:
        self._partition(topic, partition).trim(before)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for file in self._open.values():
                file.close()
            self._open.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"log {self._folder} is closed. hint: open it again")

    def _folder_of(self, topic: str) -> Path:
        return self._folder / topic

    def _partition(self, topic: str, number: int) -> Partition:
        with self._lock:
            self._check_open()
            file = self._open.get((topic, number))
            if file is not None and not file.replaced():
                return file
            if file is not None:
                self._open.pop((topic, number)).close()
            file = self._open_partition(topic, number)
            self._open[topic, number] = file
            return file

    def _open_partition(self, topic: str, number: int) -> Partition:
        folder = self._folder_of(topic)
        contents = _read_topic_file(folder)
        check_partition(topic, number, contents.partitions)
        file = Partition(folder / f"{number}.sqlite", f"{topic}/{number}")
        if (file.log_id, file.number) != (contents.log_id, number):
            file.close()
            raise DamagedError(
                f"{file.path} is of log {file.log_id} and partition {file.number}, its topic of {contents.log_id} and "
                f"its name of partition {number}. hint: restore the folder of the topic"
            )
        return file

    def _create(self, topic: str, partitions: int) -> None:
        self._check_open()
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".creating-{uuid.uuid4().hex}"
        temporary.mkdir()
        log_id = uuid.uuid4().hex
        for number in range(partitions):
            create_partition(temporary / f"{number}.sqlite", log_id, number)
        _TOPIC_FILE.write(temporary / _TOPIC_FILE_NAME, _TopicFile(topic, log_id, partitions)._asdict())
        try:
            temporary.rename(self._folder_of(topic))
        except OSError:  # another process was first; create_topic checks its topic
            shutil.rmtree(temporary)
            if not self._folder_of(topic).exists():
                raise
        sync_folder(self._folder)


class _TopicFile(NamedTuple):
    """What `topic.json` holds."""

    topic: str
    log_id: str
    partitions: int


def _read_topic_file(folder: Path) -> _TopicFile:
    """The `topic.json` in `folder`. Raises LogError if there is no topic, and DamagedError."""
    path = folder / _TOPIC_FILE_NAME
    try:
        contents = _TopicFile(**_TOPIC_FILE.read(path))
    except (FileNotFoundError, NotADirectoryError):
        raise LogError(
            f"topic {folder.name} does not exist in {folder.parent}. "
            "hint: it is created when springtide first opens its logs"
        ) from None
    if contents.topic != folder.name:
        raise _TOPIC_FILE.damaged(path, f"it is of topic {contents.topic}, its folder is {folder.name}")
    return contents
