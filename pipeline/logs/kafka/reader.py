"""Reads one partition of Kafka through kafka-python's consumer, without a group: committed records only.

Commit markers and aborted records use offsets, so gaps are normal. A consumer that returns nothing although the
partition continues is replaced, counted and logged: earlier releases of the client have stalled.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError

from pipeline.errors import OffsetError
from pipeline.logs.interface.log import ReadLimits, Record
from pipeline.logs.kafka.client import start_client
from pipeline.logs.kafka.retries import as_log_error, with_retries
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.process.clock import Clock
from pipeline.telemetry import metrics

_FETCH_BYTES = 4 << 20
"""Limit of one fetch; a larger record is returned nevertheless (the broker sends at least one batch)."""
_FETCH_WAIT_MS = 100
"""How long the broker delays an empty response; a seek waits for a pending one."""
_POLL_MS = 100

logger = structlog.get_logger(__name__)


class KafkaReader:
    """A consumer of one partition. Not thread-safe, and cannot be used after a fork."""

    def __init__(self, settings: KafkaSettings, clock: Clock, topic: str, partition: int) -> None:
        self._settings, self._clock = settings, clock
        self._partition = TopicPartition(settings.prefix + topic, partition)
        self._operation = f"read {topic}/{partition}"
        self._fetched: deque[Record] = deque()
        self._consumer: Any = None
        self.next_offset = -1
        """A read from this offset needs no seek."""
        self.rebuilds = 0
        """How often the consumer stalled and was replaced."""

    def read(self, start: int, limits: ReadLimits, end_offset: Callable[[], int]) -> list[Record]:
        """Records from `start` on; empty at `end_offset`, which is called only if no record was received.

        Raises Kafka's OffsetOutOfRangeError if the broker does not have `start`, OffsetError if records before `start`
        were lost by the broker after they were read, LogError and DamagedError.
        """
        self._seek(start)
        wait_ms, began_s = limits.wait_ms, self._clock.monotonic_s()
        progress_s, at, rebuilt_s = began_s, start, began_s
        while True:
            self._poll(limits.records, wait_ms)
            if self._fetched:
                return self._pop(limits)
            now_s, position = self._clock.monotonic_s(), self._position()
            if position >= end_offset():
                self.next_offset = position
                return []
            if position > at:
                progress_s = rebuilt_s = now_s
                at = position
            if now_s - progress_s > self._settings.retry_timeout_s:
                failure = TimeoutError(f"no record was received at offset {at} although the partition continues")
                raise as_log_error(self._settings, self._operation, failure, now_s - progress_s)
            if now_s - rebuilt_s > self._settings.stall_s:
                self._rebuild(at)
                rebuilt_s = self._clock.monotonic_s()
            wait_ms = _POLL_MS

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close(autocommit=False)
            self._consumer = None

    def _seek(self, start: int) -> None:
        if self._consumer is None:
            self._consumer = with_retries(self._settings, self._clock, self._operation, self._open)
        elif start != self.next_offset:
            self._fetched.clear()
        else:
            return
        self._consumer.seek(self._partition, start)
        self.next_offset = start

    def _open(self) -> Any:
        consumer = start_client(
            self._settings,
            KafkaConsumer,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            fetch_max_bytes=_FETCH_BYTES,
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            metrics_enabled=False,
        )
        consumer.assign([self._partition])
        return consumer

    def _rebuild(self, at: int) -> None:
        self.rebuilds += 1
        metrics.LOG_STALLS.inc()
        logger.warning(
            "kafka consumer stalled and was replaced", partition=self._operation, offset=at, times=self.rebuilds
        )
        self.close()
        self.next_offset = -1
        self._seek(at)

    def _poll(self, records: int, wait_ms: int) -> None:
        if self._fetched:
            return
        try:
            found = self._consumer.poll(timeout_ms=wait_ms, max_records=records)
        except OffsetOutOfRangeError:
            raise
        except LogTruncationError as failure:
            raise self._truncated(failure) from failure
        except KafkaError as failure:
            # Transient errors are polled again until `read` times out.
            if not failure.retriable:
                raise as_log_error(self._settings, self._operation, failure, 0.0) from failure
            metrics.LOG_FAILURES.inc()
            return
        self._fetched.extend(_record(r) for r in found.get(self._partition, ()))

    def _position(self) -> int:
        try:
            found = self._consumer.position(self._partition, timeout_ms=_POLL_MS)
        except LogTruncationError as failure:
            raise self._truncated(failure) from failure
        return self.next_offset if found is None else int(found)

    def _truncated(self, failure: LogTruncationError) -> OffsetError:
        return OffsetError(
            f"kafka at {self._settings.bootstrap}, {self._operation}: records that were read no longer exist, and "
            f"others may have replaced them: {failure}. hint: see runbooks/incidents/broker-lost.md"
        )

    def _pop(self, limits: ReadLimits) -> list[Record]:
        records: list[Record] = []
        total = 0
        while self._fetched and len(records) < limits.records:
            total += len(self._fetched[0].value)
            if records and total > limits.max_bytes:
                break
            records.append(self._fetched.popleft())
        self.next_offset = records[-1].offset + 1
        return records


def _record(found: ConsumerRecord) -> Record:
    return Record(found.offset, found.timestamp, found.value or b"", header_texts(found.headers), found.key)


def header_texts(headers: Sequence[tuple[str, bytes | None]]) -> Mapping[str, str]:
    """Headers as text; of a repeated header the last is returned, and invalid UTF-8 is replaced.

    >>> header_texts([("who", b"me"), ("who", b"you")])
    {'who': 'you'}
    """
    return {key: (value or b"").decode("utf-8", "replace") for key, value in headers}
