"""The log on Kafka, through kafka-python. A topic's log_id is the id the cluster gave this making of it.

Readers see committed records only: `end_offset` is the last stable offset, so all below it can be read, and an open
transaction of a dead writer holds it until a new writer takes the fence or the cluster's timeout passes. A fence is a
transactional id per partition: taking it raises Kafka's producer epoch, and the earlier holder's next append fails.
Topics are made so that the broker stamps records (LogAppendTime): times never run backwards, whatever producers say.
"""

import os
import threading
import uuid
from collections.abc import Mapping, Sequence, Sized
from typing import TypeVar

from kafka.errors import OffsetOutOfRangeError

from pipeline.errors import LogError, LogReplacedError, OffsetError
from pipeline.logs.kafka.calls import KafkaSettings, readings, waiting
from pipeline.logs.kafka.client_pool import LentClients
from pipeline.logs.kafka.fetcher import KafkaFetcher
from pipeline.logs.kafka.reader import KafkaReader
from pipeline.logs.kafka.topics import KafkaTopics, Topic
from pipeline.logs.kafka.writer import KafkaWriter
from pipeline.logs.log import Fence, Headers, ReadLimits, Record, check_start, check_topic_name, headers_of_each
from pipeline.logs.record_run import RecordRun
from pipeline.logs.topic_plan import WantedTopic, first_values
from pipeline.process.clock import Clock
from pipeline.telemetry import metrics, readers
from pipeline.telemetry.registry import timed

_ONE_READ = ReadLimits()
_KNOWN_S = 1.0
"""A topic that was made again, or got partitions, elsewhere is noticed within this time: to ask takes milliseconds."""
Found = TypeVar("Found", bound=Sized)


class KafkaLog:
    """Thread-safe: clients of kafka-python are not, so a reader is lent to one thread at a time and writers have locks.

    Do not carry it over a fork: it refuses to work there.
    """

    def __init__(self, settings: KafkaSettings, clock: Clock, wanted: Sequence[WantedTopic] = ()) -> None:
        self._settings, self._clock = settings, clock
        self._wanted = {topic.name: topic for topic in wanted}
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        readers.register("kafka", readings)
        self._cluster = KafkaTopics(settings, clock)
        self._seen: dict[str, tuple[Topic, float]] = {}
        """With the second each was seen at."""
        self._readers = LentClients(lambda topic, partition: KafkaReader(settings, clock, topic, partition))
        self._fetchers = LentClients(lambda topic, partition: KafkaFetcher(settings, clock, topic, partition))
        self._writers: dict[str, KafkaWriter] = {}
        self._opening = threading.Lock()
        """Held while a writer is opened, which takes the cluster; `_lock` never waits for it."""
        self._fenced: dict[Fence, tuple[KafkaWriter, str]] = {}

    def create_topic(self, topic: str, partitions: int) -> None:
        check_topic_name(topic)
        self._check_open()
        if partitions < 1:
            raise LogError(f"topic {topic} needs at least 1 partition, got {partitions}")
        if self._cluster.find(topic) is None:
            wanted = self._wanted.get(topic, WantedTopic(topic, partitions, None, "nothing else is known"))
            self._cluster.make(topic, partitions, first_values(wanted, self._settings.max_record_bytes))
        found = self._look_up(topic).partitions
        if found != partitions:
            raise LogError(
                f"topic {topic} has {found} partitions, {partitions} are wanted. "
                "hint: the number is fixed for a topic's life; set the configuration back or delete the topic"
            )

    def topics(self) -> list[str]:
        self._check_open()
        return self._cluster.names()

    def partitions(self, topic: str) -> int:
        return self._known(topic).partitions

    def log_id(self, topic: str) -> str:
        return self._known(topic).log_id

    def delete_topic(self, topic: str) -> None:
        self._check_open()
        self._cluster.delete(topic)
        with self._lock:
            self._seen.pop(topic, None)
        self._readers.forget(topic)
        self._fetchers.forget(topic)

    def settings_of(self, topic: str) -> dict[str, str]:
        """The topic's settings on the cluster."""
        self._check_open()
        return self._cluster.values(topic)

    def change_settings(self, topic: str, values: Mapping[str, str]) -> None:
        """Change settings of a topic on the cluster."""
        self._check_open()
        self._cluster.change(topic, values)

    def begin_offset(self, topic: str, partition: int) -> int:
        self._check_partition(topic, partition)
        return self._cluster.begin_offset(topic, partition)

    def end_offset(self, topic: str, partition: int) -> int:
        self._check_partition(topic, partition)
        return self._cluster.stable_offset(topic, partition)

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        self._check_partition(topic, partition)
        found = self._cluster.offset_at(topic, partition, at_ms)
        end = self.end_offset(topic, partition)
        return end if found is None else min(found, end)

    def read(self, topic: str, partition: int, start: int, limits: ReadLimits = _ONE_READ) -> list[Record]:
        return self._read(self._readers, topic, partition, start, limits)

    def read_run(self, topic: str, partition: int, start: int, limits: ReadLimits = _ONE_READ) -> RecordRun:
        """As `read`, decoded natively, a column at a time (`record_run.py`)."""
        return self._read(self._fetchers, topic, partition, start, limits)

    def append(
        self,
        topic: str,
        partition: int,
        values: Sequence[bytes],
        *,
        fence: Fence | None = None,
        headers: Headers | Sequence[Headers] | None = None,
    ) -> int:
        self._check_partition(topic, partition)
        each = headers_of_each(headers, len(values))
        if fence is not None:
            writer = self._holder(fence, topic, partition)
        elif self._settings.fits_one_batch(values, each):
            writer = self._writer("whole batches")
        else:
            writer = self._writer("transactions")
        if not values:
            return self.end_offset(topic, partition)
        with waiting(self._clock), timed(metrics.LOG_APPEND_SECONDS.labels(topic), self._clock):
            return writer.append(topic, partition, values, each)

    def acquire_fence(self, topic: str, partition: int) -> Fence:
        self._check_partition(topic, partition)
        log_id = self._look_up(topic).log_id
        name = f"springtide/{self._settings.prefix}{topic}/{partition}/{log_id}"
        writer = self._open_writer(name)
        fence = Fence(topic, partition, writer.epoch)
        with self._lock:
            earlier = [
                held
                for other, (held, _) in self._fenced.items()
                if (other.topic, other.partition) == (topic, partition)
            ]
            self._fenced[fence] = writer, log_id
        for held in earlier:
            held.retire(topic, partition)
        return fence

    def trim(self, topic: str, partition: int, before: int) -> None:
        end = self.end_offset(topic, partition)
        if before > end:
            raise OffsetError(f"partition {topic}/{partition} ends at offset {end}, cannot trim before {before}")
        if before > self.begin_offset(topic, partition):
            self._cluster.trim(topic, partition, before)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            writers = [*self._writers.values(), *(writer for writer, _ in self._fenced.values())]
        self._readers.close()
        self._fetchers.close()
        for writer in writers:
            writer.close()
        self._cluster.close()

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"log at {self._settings.bootstrap} was closed. hint: open it again")
        if os.getpid() != self._process:
            raise LogError(
                f"log at {self._settings.bootstrap} was opened by process {self._process}, this is {os.getpid()}. "
                "hint: open it after the fork"
            )

    def _look_up(self, topic: str) -> Topic:
        self._check_open()
        found = self._cluster.get(topic)
        self._seen[topic] = found, self._clock.monotonic_s()
        return found

    def _known(self, topic: str) -> Topic:
        self._check_open()
        found, seen_at_s = self._seen.get(topic, (None, 0.0))
        if found is None or self._clock.monotonic_s() - seen_at_s > _KNOWN_S:
            return self._look_up(topic)
        return found

    def _check_partition(self, topic: str, partition: int) -> None:
        self._check_open()
        seen, _ = self._seen.get(topic, (None, 0.0))
        if seen is None or not 0 <= partition < seen.partitions:
            seen = self._look_up(topic)
        if not 0 <= partition < seen.partitions:
            raise LogError(f"topic {topic} has partitions 0..{seen.partitions - 1}, {partition} is none of them")

    def _check_start(self, topic: str, partition: int, start: int) -> None:
        """Offsets of an open transaction are there, though nothing can be read yet; what lies beyond is not."""
        begin, high = self.begin_offset(topic, partition), self._cluster.high_offset(topic, partition)
        check_start(f"{topic}/{partition}", start, begin, high)

    def _read(self, clients: LentClients[Found], topic: str, partition: int, start: int, limits: ReadLimits) -> Found:
        self._check_partition(topic, partition)
        if start < 0:
            self._check_start(topic, partition, start)
        began_s = self._clock.monotonic_s()
        while True:
            try:
                with waiting(self._clock), clients.lend(topic, partition, start) as client:
                    found = client.read(start, limits, lambda: self._checked_end(topic, partition, start))
                if len(found):
                    metrics.LOG_READ_SECONDS.labels(topic).observe(self._clock.monotonic_s() - began_s)
                return found
            except OffsetOutOfRangeError:
                self._check_start(topic, partition, start)

    def _checked_end(self, topic: str, partition: int, start: int) -> int:
        end = self.end_offset(topic, partition)
        if start > end:
            self._check_start(topic, partition, start)
        return end

    def _open_writer(self, transactional_id: str | None) -> KafkaWriter:
        writer = KafkaWriter(self._settings, self._clock, transactional_id)
        try:
            if transactional_id is not None:
                writer.take_over()
        except BaseException:
            writer.close()
            raise
        return writer

    def _writer(self, kind: str) -> KafkaWriter:
        """The writer of appends without a fence; one that is lost is replaced."""
        with self._opening:
            found = self._writers.get(kind)
            if found is not None and not found.lost:
                return found
            name = f"springtide/{self._settings.prefix}append/{uuid.uuid4().hex}" if kind == "transactions" else None
            made = self._open_writer(name)
            with self._lock:
                self._writers[kind] = made
            if found is not None:
                found.close()
            return made

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
