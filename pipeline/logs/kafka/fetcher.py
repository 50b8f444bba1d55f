"""Fetches record batches of one partition as the broker sends them, without kafka-python's consumer.

It relies on undocumented parts of kafka-python 3.0.12, which `pyproject.toml` pins: the client's connections
(`KafkaNetClient._manager` with `bootstrap`, `run`, `send`, `wait_for` and `cluster`), its request and response classes
(`FetchRequest` up to version 12, by topic name), and `kafka.codec`. The live tests use every name and compare the
records with those of the plain consumer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from kafka import TopicPartition
from kafka.errors import (
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    ThrottlingQuotaExceededError,
    for_code,
)
from kafka.protocol.consumer import FetchRequest, IsolationLevel

from pipeline.logs.interface.log import ReadLimits
from pipeline.logs.interface.record_run import RecordRun
from pipeline.logs.kafka.client import NetClient
from pipeline.logs.kafka.record_batches import decode_record_set
from pipeline.logs.kafka.retries import with_retries
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.process.clock import Clock

_FETCH_BYTES = 4 << 20
"""Limit of one fetch; a larger record is returned nevertheless (the broker sends at least one batch)."""
_MAX_WAIT_MS = 1_000
_FIRST_VERSION, _LAST_VERSION = 4, 12
"""From 4 on the broker lists aborted transactions; from 13 on topics are named by id."""
_NO_SESSION, _NO_SESSION_EPOCH = 0, -1
_ANY_LEADER_EPOCH = -1
"""A former leader that is unaware of its replacement returns committed records only: they lie below its watermark."""


class KafkaFetcher:
    """Reads one partition from any offset, one fetch at a time. Not thread-safe, and cannot be used after a fork."""

    def __init__(self, settings: KafkaSettings, clock: Clock, topic: str, partition: int) -> None:
        self._settings, self._clock = settings, clock
        self._partition = TopicPartition(settings.prefix + topic, partition)
        self._operation = f"fetch {topic}/{partition}"
        self._client: Any = None
        self._fetched: RecordRun | None = None
        self.next_offset = -1
        """A read from this offset continues in what was fetched."""

    def read(self, start: int, limits: ReadLimits, end_offset: Callable[[], int]) -> RecordRun:
        """Records from `start` on; empty at `end_offset`, which is called only if no record was received.

        Raises Kafka's OffsetOutOfRangeError if the broker does not have `start`, LogError and DamagedError.
        """
        if start != self.next_offset or self._fetched is None:
            self._fetched, self.next_offset = None, start
            self._fetched = self._fetch_until_records(limits, end_offset)
        found, rest = self._fetched.cut(limits)
        self.next_offset, self._fetched = found.next_offset, rest if len(rest) else None
        return found

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _fetch_until_records(self, limits: ReadLimits, end_offset: Callable[[], int]) -> RecordRun:
        """Fetch until there are records, or the end is reached and the wait time is over."""
        deadline_s = self._clock.monotonic_s() + limits.wait_ms / 1000
        at = self.next_offset
        while True:
            left_ms = max(0, round((deadline_s - self._clock.monotonic_s()) * 1000))
            fetch = partial(self._fetch, at, left_ms)
            run, stable = with_retries(self._settings, self._clock, self._operation, fetch)
            at = run.next_offset
            if len(run) or (left_ms == 0 and at >= min(stable, end_offset())):
                return run

    def _fetch(self, start: int, wait_ms: int) -> tuple[RecordRun, int]:
        """The records of one fetch, and the last stable offset at that time."""
        manager = self._connected()
        leader = manager.cluster.leader_for_partition(self._partition)
        if leader is None or leader < 0:
            manager.cluster.add_topic(self._partition.topic)
            manager.run(manager.wait_for, manager.cluster.request_update(), self._timeout_ms())
            raise NotLeaderForPartitionError(f"{self._partition.topic}/{self._partition.partition} has no leader")
        response = manager.run(self._send, manager, leader, self._request(start, wait_ms))
        if not response.responses:
            raise ThrottlingQuotaExceededError(f"the broker throttles this client for {response.throttle_time_ms} ms")
        (found,) = response.responses[0].partitions
        if found.error_code:
            self._raise_error(manager, for_code(found.error_code))
        aborted = [(one.producer_id, one.first_offset) for one in found.aborted_transactions or ()]
        run = decode_record_set(bytes(found.records or b""), start, aborted)
        return run, found.last_stable_offset

    async def _send(self, manager: Any, leader: int, request: Any) -> Any:
        return await manager.wait_for(manager.send(request, node_id=leader), self._timeout_ms())

    def _request(self, start: int, wait_ms: int) -> Any:
        part = FetchRequest.FetchTopic.FetchPartition(
            partition=self._partition.partition,
            current_leader_epoch=_ANY_LEADER_EPOCH,
            fetch_offset=start,
            last_fetched_epoch=_ANY_LEADER_EPOCH,
            partition_max_bytes=_FETCH_BYTES,
        )
        return FetchRequest(
            max_wait_ms=min(wait_ms, _MAX_WAIT_MS),
            min_bytes=1,
            max_bytes=_FETCH_BYTES,
            isolation_level=IsolationLevel.READ_COMMITTED,
            session_id=_NO_SESSION,
            session_epoch=_NO_SESSION_EPOCH,
            topics=[FetchRequest.FetchTopic(topic=self._partition.topic, partitions=[part])],
            forgotten_topics_data=[],
            rack_id="",
            min_version=_FIRST_VERSION,
            max_version=_LAST_VERSION,
        )

    def _raise_error(self, manager: Any, failure: type[Exception]) -> None:
        if failure is not OffsetOutOfRangeError:
            manager.cluster.request_update()
        raise failure(self._operation)

    def _connected(self) -> Any:
        if self._client is None:
            client = NetClient(**self._settings.client())
            client._manager._net.start()
            try:
                client._manager.bootstrap(self._timeout_ms())
            except BaseException:
                client.close()
                raise
            self._client = client
        return self._client._manager

    def _timeout_ms(self) -> int:
        return round(min(self._settings.retry_timeout_s, 30.0) * 1000)
