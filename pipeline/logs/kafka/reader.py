"""Reads one partition of Kafka through kafka-python's own consumer: no group, our offsets only, committed records only.

Commit markers and aborted records use up offsets, so gaps are normal. A consumer that gets nothing although the
partition goes on is built anew, counted and said: releases of the client have stalled before.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError

from pipeline.errors import OffsetError
from pipeline.logs.kafka.calls import KafkaSettings, patiently, translated
from pipeline.logs.kafka.client import start_client
from pipeline.logs.log import ReadLimits, Record
from pipeline.process.clock import Clock
from pipeline.telemetry import metrics

_FETCH_BYTES = 4 << 20
"""What one fetch asks for; a larger record comes all the same (the broker sends at least one batch)."""
_FETCH_WAIT_MS = 100
"""How long the broker holds an empty answer back; a jump to another offset waits for it."""
_POLL_MS = 100

_say = structlog.get_logger()


class KafkaReader:
    """A consumer of one partition. Not thread-safe; do not carry it over a fork."""

    def __init__(self, settings: KafkaSettings, clock: Clock, topic: str, partition: int) -> None:
        self._settings, self._clock = settings, clock
        self._place = TopicPartition(settings.prefix + topic, partition)
        self._what = f"read {topic}/{partition}"
        self._ahead: deque[Record] = deque()
        self._consumer: Any = None
        self.at = -1
        """The offset it reads on from without asking again."""
        self.rebuilt = 0
        """How often the consumer stalled and was built anew."""

    def read(self, start: int, limits: ReadLimits, end_offset: Callable[[], int]) -> list[Record]:
        """Records from `start` on; empty where `end_offset`, asked once nothing came, is reached.

        Raises OffsetOutOfRangeError (Kafka's) where the broker does not hold `start`, OffsetError where what was read
        before it has been replaced, LogError and DamagedError.
        """
        self._go_to(start)
        wait_ms, began_s = limits.wait_ms, self._clock.monotonic_s()
        moved_s, at, built_s = began_s, start, began_s
        while True:
            self._poll(limits.records, wait_ms)
            if self._ahead:
                return self._take(limits)
            now_s, reached = self._clock.monotonic_s(), self._position()
            if reached >= end_offset():
                self.at = reached
                return []
            if reached > at:
                moved_s = built_s = now_s
                at = reached
            if now_s - moved_s > self._settings.patience_s:
                failure = TimeoutError(f"nothing came at offset {at} though the partition goes on")
                raise translated(self._settings, self._what, failure, now_s - moved_s)
            if now_s - built_s > self._settings.stall_s:
                self._rebuild(at)
                built_s = self._clock.monotonic_s()
            wait_ms = _POLL_MS

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close(autocommit=False)
            self._consumer = None

    def _go_to(self, start: int) -> None:
        if self._consumer is None:
            self._consumer = patiently(self._settings, self._clock, self._what, self._open)
        elif start != self.at:
            self._ahead.clear()
        else:
            return
        self._consumer.seek(self._place, start)
        self.at = start

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
        consumer.assign([self._place])
        return consumer

    def _rebuild(self, at: int) -> None:
        self.rebuilt += 1
        metrics.LOG_STALLS.inc()
        _say.warning("kafka reader stalled, built anew", place=self._what, offset=at, times=self.rebuilt)
        self.close()
        self.at = -1
        self._go_to(at)

    def _poll(self, records: int, wait_ms: int) -> None:
        if self._ahead:
            return
        try:
            found = self._consumer.poll(timeout_ms=wait_ms, max_records=records)
        except OffsetOutOfRangeError:
            raise
        except LogTruncationError as failure:
            raise self._truncated(failure) from failure
        except KafkaError as failure:
            # What passes is polled again; the caller's watch over the offset ends it.
            if not failure.retriable:
                raise translated(self._settings, self._what, failure, 0.0) from failure
            metrics.LOG_FAILURES.inc()
            return
        self._ahead.extend(_record(r) for r in found.get(self._place, ()))

    def _position(self) -> int:
        try:
            found = self._consumer.position(self._place, timeout_ms=_POLL_MS)
        except LogTruncationError as failure:
            raise self._truncated(failure) from failure
        return self.at if found is None else int(found)

    def _truncated(self, failure: LogTruncationError) -> OffsetError:
        return OffsetError(
            f"kafka at {self._settings.bootstrap}, {self._what}: records that were read are no longer there, and "
            f"others may be in their place: {failure}. hint: see runbooks/broker-lost.md"
        )

    def _take(self, limits: ReadLimits) -> list[Record]:
        taken: list[Record] = []
        total = 0
        while self._ahead and len(taken) < limits.records:
            total += len(self._ahead[0].value)
            if taken and total > limits.max_bytes:
                break
            taken.append(self._ahead.popleft())
        self.at = taken[-1].offset + 1
        return taken


def _record(found: ConsumerRecord) -> Record:
    return Record(found.offset, found.timestamp, found.value or b"", header_texts(found.headers))


def header_texts(headers: Sequence[tuple[str, bytes | None]]) -> Mapping[str, str]:
    """Headers as text; of one that is there twice the last, and what is no UTF-8 is marked as such.

    >>> header_texts([("who", b"me"), ("who", b"you")])
    {'who': 'you'}
    """
    return {key: (value or b"").decode("utf-8", "replace") for key, value in headers}
