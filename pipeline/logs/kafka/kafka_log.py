"""The log on Kafka, through kafka-python. A topic's log_id is the topic id that the cluster assigned.

Readers see committed records only: `end_offset` is the last stable offset, so all records below it can be read. The
open transaction of a dead writer holds it back until the next writer acquires the fence or the cluster's timeout
passes. A fence is a transactional id per partition: acquiring it raises Kafka's producer epoch, and the next append of
the earlier owner fails. Topics are created with LogAppendTime, so that append times never decrease whatever the
clocks of the producers show.
"""

import os
import threading
import uuid
from collections.abc import Mapping, Sequence, Sized
from typing import TypeVar

from kafka.errors import OffsetOutOfRangeError

from pipeline.errors import LogError
from pipeline.logs.interface.checks import (
    check_fence,
    check_log_of_fence,
    check_new_topic,
    check_partition,
    check_partition_count,
    check_start,
    check_trim,
    new_records,
)
from pipeline.logs.interface.log import Fence, Headers, ReadLimits, Record
from pipeline.logs.interface.record_run import RecordRun
from pipeline.logs.interface.topic_specs import TopicSpec, initial_settings
from pipeline.logs.kafka.client_pool import ClientPool
from pipeline.logs.kafka.fetcher import KafkaFetcher
from pipeline.logs.kafka.reader import KafkaReader
from pipeline.logs.kafka.retries import pending_call, readings
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.logs.kafka.topics import KafkaTopics, Topic
from pipeline.logs.kafka.writer import KafkaWriter
from pipeline.process.clock import Clock
from pipeline.telemetry import metrics, readers
from pipeline.telemetry.registry import timed

_DEFAULT_LIMITS = ReadLimits()
_TOPIC_CACHE_S = 1.0
"""A topic that another process recreated, or gave partitions, is detected within this time; a look-up takes
milliseconds."""
Result = TypeVar("Result", bound=Sized)


class KafkaLog:
    """Thread-safe, although kafka-python's clients are not: readers come from a pool, and writers serialise appends.

    Every method raises LogError after a fork.
    """

    def __init__(self, settings: KafkaSettings, clock: Clock, specs: Sequence[TopicSpec] = ()) -> None:
        self._settings, self._clock = settings, clock
        self._specs = {topic.name: topic for topic in specs}
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        readers.register("kafka", readings)
        self._cluster = KafkaTopics(settings, clock)
        self._topics: dict[str, tuple[Topic, float]] = {}
        """A cache, with the second of each look-up."""
        self._readers = ClientPool(lambda topic, partition: KafkaReader(settings, clock, topic, partition))
        self._fetchers = ClientPool(lambda topic, partition: KafkaFetcher(settings, clock, topic, partition))
        self._writers: dict[str, KafkaWriter] = {}
        self._opening = threading.Lock()
        """Held while a writer is opened, which waits for the cluster; `_lock` is never held that long."""
        self._fenced: dict[Fence, tuple[KafkaWriter, str]] = {}
        """With the log_id of the topic when the fence was acquired."""

    def create_topic(self, topic: str, partitions: int) -> None:
        self._check_open()
        check_new_topic(topic, partitions)
        if self._cluster.find(topic) is None:
            spec = self._specs.get(topic, TopicSpec(topic, partitions, None, "not in the configuration"))
            self._cluster.create(topic, partitions, initial_settings(spec, self._settings.max_record_bytes))
        check_partition_count(topic, self._look_up(topic).partitions, partitions)

    def topics(self) -> list[str]:
        self._check_open()
        return self._cluster.names()

    def partitions(self, topic: str) -> int:
        return self._topic(topic).partitions

    def log_id(self, topic: str) -> str:
        return self._topic(topic).log_id

    def delete_topic(self, topic: str) -> None:
        self._check_open()
        self._cluster.delete(topic)
        with self._lock:
            self._topics.pop(topic, None)
        self._readers.close_topic(topic)
        self._fetchers.close_topic(topic)

    def settings_of(self, topic: str) -> dict[str, str]:
        """The topic's settings on the cluster."""
        self._check_open()
        return self._cluster.settings_of(topic)

    def change_settings(self, topic: str, values: Mapping[str, str]) -> None:
        """Change settings of a topic on the cluster."""
        self._check_open()
        self._cluster.change_settings(topic, values)

    def begin_offset(self, topic: str, partition: int) -> int:
        self._check_partition(topic, partition)
        return self._cluster.begin_offset(topic, partition)

    def end_offset(self, topic: str, partition: int) -> int:
        self._check_partition(topic, partition)
        return self._cluster.last_stable_offset(topic, partition)

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        self._check_partition(topic, partition)
        found = self._cluster.offset_at(topic, partition, at_ms)
        end = self.end_offset(topic, partition)
        return end if found is None else min(found, end)

    def read(self, topic: str, partition: int, start: int, limits: ReadLimits = _DEFAULT_LIMITS) -> list[Record]:
        return self._read(self._readers, topic, partition, start, limits)

    def read_run(self, topic: str, partition: int, start: int, limits: ReadLimits = _DEFAULT_LIMITS) -> RecordRun:
        """As `read`, with the records as columns that are decoded natively."""
        return self._read(self._fetchers, topic, partition, start, limits)

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
        self._check_partition(topic, partition)
        records = new_records(values, headers, keys)
        if fence is not None:
            writer = self._fenced_writer(fence, topic, partition)
        else:
            writer = self._shared_writer(transactional=not self._settings.fits_one_batch(records))
        if not values:
            return self.end_offset(topic, partition)
        with pending_call(self._clock), timed(metrics.LOG_APPEND_SECONDS.labels(topic), self._clock):
            return writer.append(topic, partition, records)

    def acquire_fence(self, topic: str, partition: int) -> Fence:
        self._check_partition(topic, partition)
        log_id = self._look_up(topic).log_id
        name = f"springtide/{self._settings.prefix}{topic}/{partition}/{log_id}"
        writer = KafkaWriter(self._settings, self._clock, name)
        fence = Fence(topic, partition, writer.epoch)
        with self._lock:
            fenced = [(other, earlier) for other, (earlier, _) in self._fenced.items()]
            self._fenced[fence] = writer, log_id
        for other, earlier in fenced:
            if (other.topic, other.partition) == (topic, partition):
                earlier.retire(topic, partition)
        return fence

    def trim(self, topic: str, partition: int, before: int) -> None:
        check_trim(f"{topic}/{partition}", before, self.end_offset(topic, partition))
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
            raise LogError(f"log at {self._settings.bootstrap} is closed. hint: open it again")
        if os.getpid() != self._process:
            raise LogError(
                f"log at {self._settings.bootstrap} was opened by process {self._process}, this is {os.getpid()}. "
                "hint: open it after the fork"
            )

    def _look_up(self, topic: str) -> Topic:
        self._check_open()
        found = self._cluster.get(topic)
        self._topics[topic] = found, self._clock.monotonic_s()
        return found

    def _topic(self, topic: str) -> Topic:
        self._check_open()
        found, looked_up_at_s = self._topics.get(topic, (None, 0.0))
        if found is None or self._clock.monotonic_s() - looked_up_at_s > _TOPIC_CACHE_S:
            return self._look_up(topic)
        return found

    def _check_partition(self, topic: str, partition: int) -> None:
        """Look the topic up only for a partition that the cache does not have."""
        self._check_open()
        found, _ = self._topics.get(topic, (None, 0.0))
        if found is None or not 0 <= partition < found.partitions:
            check_partition(topic, partition, self._look_up(topic).partitions)

    def _check_start(self, topic: str, partition: int, start: int) -> None:
        """Offsets of an open transaction exist, although its records cannot be read yet."""
        begin, end = self.begin_offset(topic, partition), self._cluster.high_watermark(topic, partition)
        check_start(f"{topic}/{partition}", start, begin, end)

    def _read(self, clients: ClientPool[Result], topic: str, partition: int, start: int, limits: ReadLimits) -> Result:
        self._check_partition(topic, partition)
        if start < 0:
            self._check_start(topic, partition, start)
        began_s = self._clock.monotonic_s()
        while True:
            try:
                with pending_call(self._clock), clients.borrow(topic, partition, start) as client:
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

    def _shared_writer(self, transactional: bool) -> KafkaWriter:
        """The writer for appends without a fence; one that failed is replaced."""
        kind = "transactions" if transactional else "batches"
        with self._opening:
            found = self._writers.get(kind)
            if found is not None and not found.failed:
                return found
            name = f"springtide/{self._settings.prefix}append/{uuid.uuid4().hex}" if transactional else None
            writer = KafkaWriter(self._settings, self._clock, name)
            with self._lock:
                self._writers[kind] = writer
            if found is not None:
                found.close()
            return writer

    def _fenced_writer(self, fence: Fence, topic: str, partition: int) -> KafkaWriter:
        check_fence(fence, topic, partition)
        if fence not in self._fenced:
            raise LogError(f"fence {fence.epoch} of {topic}/{partition} was not acquired through this log")
        writer, log_id = self._fenced[fence]
        check_log_of_fence(topic, self.log_id(topic), log_id)
        return writer
