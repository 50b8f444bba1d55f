"""The log on Kafka, through kafka-python. A topic's log_id is the id the cluster gave this making of it.

Readers see committed records only: `end_offset` is the last stable offset, so all below it can be read, and an open
transaction of a dead writer holds it until a new writer takes the fence or the cluster's timeout passes. A fence is a
transactional id per partition: taking it raises Kafka's producer epoch, and the earlier holder's next append fails.
Topics are made so that the broker stamps records (LogAppendTime): times never run backwards, whatever producers say.
"""

import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from kafka import KafkaAdminClient, OffsetSpec, TopicPartition
from kafka.consumer.fetcher import IsolationLevel
from kafka.errors import (
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from pipeline.ground.clock import Clock
from pipeline.ground.errors import LogError, LogReplacedError, OffsetError
from pipeline.logs.kafka_calls import KafkaSettings, patiently
from pipeline.logs.kafka_reader import KafkaReader
from pipeline.logs.kafka_writer import KafkaWriter
from pipeline.logs.log import Fence, ReadLimits, Record
from pipeline.logs.partition import check_start
from pipeline.logs.sqlite import check_topic_name

_ONE_READ = ReadLimits()
_IDLE_READERS = 2
_PAUSE_S = 0.02
Found = TypeVar("Found")


@dataclass(frozen=True)
class _Topic:
    log_id: str
    partitions: int


class KafkaLog:
    """Thread-safe: clients of kafka-python are not, so a reader is lent to one thread at a time and writers have locks.

    Do not carry it over a fork: it refuses to work there.
    """

    def __init__(self, settings: KafkaSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._admin: Any = patiently(settings, clock, "connect", lambda: KafkaAdminClient(**settings.client()))
        self._topics: dict[str, _Topic] = {}
        self._readers: dict[tuple[str, int], list[KafkaReader]] = {}
        self._writers: dict[str, KafkaWriter] = {}
        self._fenced: dict[Fence, tuple[KafkaWriter, str]] = {}
        self._epochs = itertools.count(1)

    def create_topic(self, topic: str, partitions: int) -> None:
        check_topic_name(topic)
        if partitions < 1:
            raise LogError(f"topic {topic} needs at least 1 partition, got {partitions}")
        if self._describe(topic) is None:
            self._ask(f"make topic {topic}", lambda: self._make(topic, partitions))
        found = self.partitions(topic)
        if found != partitions:
            raise LogError(
                f"topic {topic} has {found} partitions, {partitions} are wanted. "
                "hint: the number is fixed for a topic's life; set the configuration back or delete the topic"
            )

    def topics(self) -> list[str]:
        prefix = self._settings.prefix
        names: list[str] = self._ask("list topics", self._admin.list_topics)
        return sorted(n.removeprefix(prefix) for n in names if n.startswith(prefix) and not n.startswith("__"))

    def partitions(self, topic: str) -> int:
        return self._look_up(topic).partitions

    def log_id(self, topic: str) -> str:
        return self._look_up(topic).log_id

    def delete_topic(self, topic: str) -> None:
        log_id = self.log_id(topic)
        name = self._settings.prefix + topic
        self._ask(f"delete topic {topic}", lambda: self._admin.delete_topics([name]))
        ends_s = self._clock.monotonic_s() + self._settings.patience_s
        while (found := self._describe(topic)) is not None and found.log_id == log_id:
            if self._clock.monotonic_s() > ends_s:
                raise LogError(f"topic {topic} is still there {self._settings.patience_s:g} s after it was deleted")
            self._clock.wait(_PAUSE_S)
        self._forget(topic)

    def begin_offset(self, topic: str, partition: int) -> int:
        return self._offset(topic, partition, OffsetSpec.EARLIEST)

    def end_offset(self, topic: str, partition: int) -> int:
        return self._offset(topic, partition, OffsetSpec.LATEST)

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        found = self._offset(topic, partition, max(at_ms, 0))
        end = self.end_offset(topic, partition)
        return end if found < 0 else min(found, end)

    def read(self, topic: str, partition: int, start: int, limits: ReadLimits = _ONE_READ) -> list[Record]:
        self._check_partition(topic, partition)
        name = f"{topic}/{partition}"
        if start < 0:
            check_start(name, start, self.begin_offset(topic, partition), self.end_offset(topic, partition))
        while True:
            try:
                with self._reader(topic, partition, start) as reader:
                    return reader.read(start, limits, lambda: self._checked_end(topic, partition, start))
            except OffsetOutOfRangeError:
                high = self._offset(topic, partition, OffsetSpec.LATEST, IsolationLevel.READ_UNCOMMITTED)
                check_start(name, start, self.begin_offset(topic, partition), high)

    def append(
        self,
        topic: str,
        partition: int,
        values: Sequence[bytes],
        *,
        fence: Fence | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        self._check_partition(topic, partition)
        if fence is not None:
            writer = self._holder(fence, topic, partition)
        elif not values or self._writer("plain").fits_one_batch(values, headers or {}):
            writer = self._writer("plain")
        else:
            writer = self._writer("large")
        return writer.append(topic, partition, values, headers or {}) if values else self.end_offset(topic, partition)

    def take_fence(self, topic: str, partition: int) -> Fence:
        self._check_partition(topic, partition)
        log_id = self.log_id(topic)
        name = f"freshet/{self._settings.prefix}{topic}/{partition}/{log_id}"
        writer = KafkaWriter(self._settings, self._clock, name)
        try:
            writer.take_over()
        except BaseException:
            writer.close()
            raise
        # Kafka's own epoch is the fence; this number only tells the take-overs of one process apart.
        fence = Fence(topic, partition, next(self._epochs))
        with self._lock:
            self._fenced[fence] = writer, log_id
        return fence

    def trim(self, topic: str, partition: int, before: int) -> None:
        end = self.end_offset(topic, partition)
        if before > end:
            raise OffsetError(f"partition {topic}/{partition} ends at offset {end}, cannot trim before {before}")
        if before > self.begin_offset(topic, partition):
            place = self._place(topic, partition)
            self._ask(f"trim {topic}/{partition}", lambda: self._admin.delete_records({place: before}))

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            readers = [reader for idle in self._readers.values() for reader in idle]
            writers = [*self._writers.values(), *(writer for writer, _ in self._fenced.values())]
        for client in (*readers, *writers, self._admin):
            client.close()

    def stalls(self) -> int:
        """How often readers stalled and were built anew."""
        with self._lock:
            return sum(reader.rebuilt for idle in self._readers.values() for reader in idle)

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"log at {self._settings.bootstrap} was closed. hint: open it again")
        if os.getpid() != self._process:
            raise LogError(
                f"log at {self._settings.bootstrap} was opened by process {self._process}, this is {os.getpid()}. "
                "hint: open it after the fork"
            )

    def _ask(self, what: str, call: Callable[[], Found]) -> Found:
        self._check_open()
        return patiently(self._settings, self._clock, what, call)

    def _place(self, topic: str, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.prefix + topic, partition)

    def _describe(self, topic: str) -> _Topic | None:
        """The topic as the cluster has it now; None where it has not."""

        def ask() -> _Topic | None:
            (found,) = self._admin.describe_topics([self._settings.prefix + topic])
            failure = for_code(found["error_code"])
            if failure is UnknownTopicOrPartitionError:
                return None
            if found["error_code"] != 0:
                raise failure(topic)
            return _Topic(self._topic_id(topic, found), len(found["partitions"]))

        return self._ask(f"look up topic {topic}", ask)

    def _topic_id(self, topic: str, found: Mapping[str, Any]) -> str:
        given = str(found.get("topic_id") or uuid.UUID(int=0))
        if uuid.UUID(given).int == 0:
            raise LogError(
                f"kafka at {self._settings.bootstrap} gives topic {topic} no id, so one made again could not be told "
                "apart. hint: brokers from 2.8 on give ids"
            )
        return given

    def _look_up(self, topic: str) -> _Topic:
        found = self._describe(topic)
        if found is None:
            self._forget(topic)
            raise LogError(f"topic {topic} does not exist at {self._settings.bootstrap}. run: freshet topics create")
        with self._lock:
            self._topics[topic] = found
        return found

    def _forget(self, topic: str) -> None:
        with self._lock:
            self._topics.pop(topic, None)
            gone = [r for key in list(self._readers) if key[0] == topic for r in self._readers.pop(key)]
        for reader in gone:
            reader.close()

    def _check_partition(self, topic: str, partition: int) -> None:
        self._check_open()
        found = self._topics.get(topic) or self._look_up(topic)
        if not 0 <= partition < found.partitions and partition >= self._look_up(topic).partitions or partition < 0:
            raise LogError(f"topic {topic} has partitions 0..{found.partitions - 1}, {partition} is none of them")

    def _offset(
        self,
        topic: str,
        partition: int,
        wanted: int,
        isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> int:
        self._check_partition(topic, partition)
        place = self._place(topic, partition)

        def ask() -> int:
            try:
                return int(self._admin.list_partition_offsets({place: wanted}, isolation_level=isolation)[place].offset)
            except UnknownTopicOrPartitionError:
                self._look_up(topic)
                raise

        return self._ask(f"find an offset of {topic}/{partition}", ask)

    def _checked_end(self, topic: str, partition: int, start: int) -> int:
        end = self.end_offset(topic, partition)
        if start > end:
            # Offsets of an open transaction are there, though nothing can be read yet; what lies beyond is not.
            high = self._offset(topic, partition, OffsetSpec.LATEST, IsolationLevel.READ_UNCOMMITTED)
            check_start(f"{topic}/{partition}", start, 0, max(end, high))
        return end

    @contextmanager
    def _reader(self, topic: str, partition: int, start: int) -> Iterator[KafkaReader]:
        """A reader for this thread alone, if possible the one that has come to `start`."""
        with self._lock:
            idle = self._readers.setdefault((topic, partition), [])
            found = next((r for r in idle if r.at == start), idle[-1] if idle else None)
            if found is not None:
                idle.remove(found)
        reader = found or KafkaReader(self._settings, self._clock, topic, partition)
        try:
            yield reader
        except BaseException:
            reader.close()
            raise
        with self._lock:
            idle = self._readers.setdefault((topic, partition), [])
            keep = not self._closed and len(idle) < _IDLE_READERS
            if keep:
                idle.append(reader)
        if not keep:
            reader.close()

    def _writer(self, kind: str) -> KafkaWriter:
        with self._lock:
            found = self._writers.get(kind)
            if found is None or found.lost:
                name = f"freshet/{self._settings.prefix}append/{uuid.uuid4().hex}" if kind == "large" else None
                made = KafkaWriter(self._settings, self._clock, name)
                if name is not None:
                    made.take_over()
                self._writers[kind] = made
                if found is not None:
                    found.close()
            return self._writers[kind]

    def _holder(self, fence: Fence, topic: str, partition: int) -> KafkaWriter:
        if (fence.topic, fence.partition) != (topic, partition):
            raise LogError(f"fence of {fence.topic}/{fence.partition} cannot append to {topic}/{partition}")
        if fence not in self._fenced:
            raise LogError(f"fence {fence.epoch} of {topic}/{partition} was not taken through this log")
        writer, taken_in = self._fenced[fence]
        log_id = self.log_id(topic)
        if taken_in != log_id:
            raise LogReplacedError(
                f"topic {topic} was made again: its log is {log_id}, the fence is of {taken_in}. "
                "hint: choose where to start in the new one"
            )
        return writer

    def _make(self, topic: str, partitions: int) -> None:
        settings = self._settings
        configs = {
            "cleanup.policy": "delete",
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(settings.max_record_bytes),
        }
        if topic in settings.retention_ms:
            kept_ms = settings.retention_ms[topic]
            configs["retention.ms"] = str(-1 if kept_ms is None else kept_ms)
        wanted = {
            "num_partitions": partitions,
            "replication_factor": settings.replication_factor or -1,
            "configs": configs,
        }
        try:
            self._admin.create_topics({settings.prefix + topic: wanted})
        except TopicAlreadyExistsError:
            pass  # another process was first; whose topic it is, create_topic checks
        self._admin.wait_for_topics([settings.prefix + topic])
