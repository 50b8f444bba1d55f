"""Fetches record batches of one partition as the broker sends them, past kafka-python's consumer.

What it rests on, all in kafka-python 3.0.12, which `pyproject.toml` pins: the client's connections
(`KafkaNetClient._manager` with `bootstrap`, `run`, `send`, `wait_for` and `cluster`), its request and response classes
(`FetchRequest` up to version 12, by topic name), and `kafka.codec`. Its documentation promises none of that. What
guards it: the live tests use every name, and what is read here must equal what the plain consumer reads.
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

from pipeline.logs.kafka.calls import KafkaSettings, patiently
from pipeline.logs.kafka.client import PatientClient
from pipeline.logs.kafka.record_batches import decode_record_set
from pipeline.logs.log import ReadLimits
from pipeline.logs.record_run import RecordRun
from pipeline.process.clock import Clock

_FETCH_BYTES = 4 << 20
"""What one fetch asks for; a larger record comes all the same (the broker sends at least one batch)."""
_MOST_WAIT_MS = 1_000
_FIRST_VERSION, _LAST_VERSION = 4, 12
"""From 4 on the broker lists aborted transactions; from 13 on topics go by id."""
_NO_SESSION, _NO_SESSION_EPOCH = 0, -1
_ANY_LEADER_EPOCH = -1
"""What a leader that was deposed and does not know it still gives is committed: it lies below its high watermark."""


class KafkaFetcher:
    """Reads one partition from any offset, one fetch at a time. Not thread-safe; do not carry it over a fork."""

    def __init__(self, settings: KafkaSettings, clock: Clock, topic: str, partition: int) -> None:
        self._settings, self._clock = settings, clock
        self._place = TopicPartition(settings.prefix + topic, partition)
        self._what = f"fetch {topic}/{partition}"
        self._client: Any = None
        self._ahead: RecordRun | None = None
        self.at = -1
        """The offset it reads on from without asking again."""
        self.rebuilt = 0
        """Nothing here keeps a state that could stall: every fetch stands alone."""

    def read(self, start: int, limits: ReadLimits, end_offset: Callable[[], int]) -> RecordRun:
        """Records from `start` on; empty where `end_offset`, asked once nothing came, is reached.

        Raises OffsetOutOfRangeError (Kafka's) where the broker does not hold `start`, LogError and DamagedError.
        """
        if start != self.at or self._ahead is None:
            self._ahead, self.at = None, start
            self._fill(limits, end_offset)
        assert self._ahead is not None
        found, rest = self._ahead.cut(limits)
        self.at, self._ahead = found.next_offset, rest if len(rest) else None
        return found

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _fill(self, limits: ReadLimits, end_offset: Callable[[], int]) -> None:
        """Fetch until there are records, the end is reached and the wait is over."""
        ends_s = self._clock.monotonic_s() + limits.wait_ms / 1000
        at = self.at
        while True:
            left_ms = max(0, round((ends_s - self._clock.monotonic_s()) * 1000))
            run, stable = patiently(self._settings, self._clock, self._what, partial(self._fetch, at, left_ms))
            at = run.next_offset
            over = left_ms == 0 and at >= min(stable, end_offset())
            if len(run) or over:
                self._ahead = run
                return

    def _fetch(self, start: int, wait_ms: int) -> tuple[RecordRun, int]:
        """What one fetch gives, and the offset below which every transaction was decided then."""
        manager = self._connected()
        leader = manager.cluster.leader_for_partition(self._place)
        if leader is None or leader < 0:
            manager.cluster.add_topic(self._place.topic)
            manager.run(manager.wait_for, manager.cluster.request_update(), self._timeout_ms())
            raise NotLeaderForPartitionError(f"{self._place.topic}/{self._place.partition} has no leader")
        response = manager.run(self._ask, manager, leader, self._request(start, wait_ms))
        if not response.responses:
            raise ThrottlingQuotaExceededError(f"the broker holds back for {response.throttle_time_ms} ms")
        (found,) = response.responses[0].partitions
        if found.error_code:
            self._refuse(manager, for_code(found.error_code))
        aborted = [(one.producer_id, one.first_offset) for one in found.aborted_transactions or ()]
        run = decode_record_set(bytes(found.records or b""), start, aborted)
        return run, found.last_stable_offset

    async def _ask(self, manager: Any, leader: int, request: Any) -> Any:
        return await manager.wait_for(manager.send(request, node_id=leader), self._timeout_ms())

    def _request(self, start: int, wait_ms: int) -> Any:
        part = FetchRequest.FetchTopic.FetchPartition(
            partition=self._place.partition,
            current_leader_epoch=_ANY_LEADER_EPOCH,
            fetch_offset=start,
            last_fetched_epoch=_ANY_LEADER_EPOCH,
            partition_max_bytes=_FETCH_BYTES,
        )
        return FetchRequest(
            max_wait_ms=min(wait_ms, _MOST_WAIT_MS),
            min_bytes=1,
            max_bytes=_FETCH_BYTES,
            isolation_level=IsolationLevel.READ_COMMITTED,
            session_id=_NO_SESSION,
            session_epoch=_NO_SESSION_EPOCH,
            topics=[FetchRequest.FetchTopic(topic=self._place.topic, partitions=[part])],
            forgotten_topics_data=[],
            rack_id="",
            min_version=_FIRST_VERSION,
            max_version=_LAST_VERSION,
        )

    def _refuse(self, manager: Any, failure: type[Exception]) -> None:
        if failure is not OffsetOutOfRangeError:
            manager.cluster.request_update()
        raise failure(self._what)

    def _connected(self) -> Any:
        if self._client is None:
            client = PatientClient(**self._settings.client())
            client._manager._net.start()
            try:
                client._manager.bootstrap(self._timeout_ms())
            except BaseException:
                client.close()
                raise
            self._client = client
        return self._client._manager

    def _timeout_ms(self) -> int:
        return round(min(self._settings.patience_s, 30.0) * 1000)
