"""Topics of a Kafka cluster: their ids, offsets and settings; creating, changing, trimming and deleting them."""

import contextlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from kafka import IsolationLevel, KafkaAdminClient, OffsetSpec, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from pipeline.errors import LogError
from pipeline.logs.kafka.client import start_client
from pipeline.logs.kafka.preflight import preflight
from pipeline.logs.kafka.retries import with_retries
from pipeline.logs.kafka.settings import KafkaSettings
from pipeline.process.clock import Clock

_POLL_S = 0.02
Result = TypeVar("Result")


@dataclass(frozen=True)
class Topic:
    """The id that the cluster gave the topic when it was created, and its number of partitions."""

    log_id: str
    partitions: int


class KafkaTopics:
    """Thread-safe: every call runs on the client's own thread. Cannot be used after a fork."""

    def __init__(self, settings: KafkaSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        if settings.security:
            self._call("connect", lambda: preflight(settings))
        self._admin: Any = self._call("connect", lambda: start_client(settings, KafkaAdminClient))

    def names(self) -> list[str]:
        """All topics with the prefix of the settings, sorted, without the prefix."""
        prefix = self._settings.prefix
        names: list[str] = self._call("list topics", self._admin.list_topics)
        return sorted(n.removeprefix(prefix) for n in names if n.startswith(prefix) and not n.startswith("__"))

    def find(self, topic: str) -> Topic | None:
        """The topic as it is now; None if it does not exist."""

        def describe() -> Topic | None:
            (found,) = self._admin.describe_topics([self._name(topic)])
            failure = for_code(found["error_code"])
            if failure is UnknownTopicOrPartitionError:
                return None
            if found["error_code"] != 0:
                raise failure(topic)
            return Topic(self._topic_id(topic, found), len(found["partitions"]))

        return self._call(f"look up topic {topic}", describe)

    def get(self, topic: str) -> Topic:
        """The topic as it is now. Raises LogError if it does not exist."""
        found = self.find(topic)
        if found is None:
            raise LogError(f"topic {topic} does not exist at {self._settings.bootstrap}. run: springtide topics create")
        return found

    def create(self, topic: str, partitions: int, values: Mapping[str, str]) -> None:
        """Create a topic with these settings; a topic that another process created meanwhile stays as it is."""
        wanted = {
            "num_partitions": partitions,
            "replication_factor": self._settings.replication_factor or -1,
            "configs": dict(values),
        }

        def create() -> None:
            with contextlib.suppress(TopicAlreadyExistsError):
                self._admin.create_topics({self._name(topic): wanted})
            self._admin.wait_for_topics([self._name(topic)])

        self._call(f"create topic {topic}", create)

    def delete(self, topic: str) -> None:
        """Delete a topic; returns when the cluster no longer lists it."""
        log_id = self.get(topic).log_id
        self._call(f"delete topic {topic}", lambda: self._admin.delete_topics([self._name(topic)]))
        timeout_s = self._settings.retry_timeout_s
        deadline_s = self._clock.monotonic_s() + timeout_s
        while (found := self.find(topic)) is not None and found.log_id == log_id:
            if self._clock.monotonic_s() > deadline_s:
                raise LogError(f"topic {topic} still exists {timeout_s:g} s after it was deleted")
            self._clock.wait(_POLL_S)

    def settings_of(self, topic: str) -> dict[str, str]:
        """The topic's settings, including the cluster's defaults."""
        resource = ConfigResource(ConfigResourceType.TOPIC, self._name(topic))
        found = self._call(
            f"read the settings of topic {topic}",
            lambda: self._admin.describe_configs([resource], config_filter="all"),
        )
        return {key: str(setting["value"]) for key, setting in found["topic"][self._name(topic)].items()}

    def change_settings(self, topic: str, values: Mapping[str, str]) -> None:
        """Change settings of a topic."""
        resource = ConfigResource(ConfigResourceType.TOPIC, self._name(topic), dict(values))
        self._call(f"change the settings of topic {topic}", lambda: self._admin.alter_configs([resource]))

    def begin_offset(self, topic: str, partition: int) -> int:
        return self._offset(topic, partition, OffsetSpec.EARLIEST, IsolationLevel.READ_COMMITTED)

    def last_stable_offset(self, topic: str, partition: int) -> int:
        """The end for readers: every transaction below it is committed or aborted."""
        return self._offset(topic, partition, OffsetSpec.LATEST, IsolationLevel.READ_COMMITTED)

    def high_watermark(self, topic: str, partition: int) -> int:
        """The end including open transactions."""
        return self._offset(topic, partition, OffsetSpec.LATEST, IsolationLevel.READ_UNCOMMITTED)

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int | None:
        """The first offset appended at or after `at_ms`; None if there is none."""
        found = self._offset(topic, partition, max(at_ms, 0), IsolationLevel.READ_COMMITTED)
        return None if found < 0 else found

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Delete the records below `before`."""
        key = TopicPartition(self._name(topic), partition)
        self._call(f"trim {topic}/{partition}", lambda: self._admin.delete_records({key: before}))

    def close(self) -> None:
        self._admin.close()

    def _name(self, topic: str) -> str:
        return self._settings.prefix + topic

    def _call(self, operation: str, call: Callable[[], Result]) -> Result:
        return with_retries(self._settings, self._clock, operation, call)

    def _offset(self, topic: str, partition: int, wanted: int, isolation: IsolationLevel) -> int:
        key = TopicPartition(self._name(topic), partition)

        def list_offset() -> int:
            try:
                found = self._admin.list_partition_offsets({key: wanted}, isolation_level=isolation)
            except UnknownTopicOrPartitionError:
                self.get(topic)  # raises if the topic was deleted; otherwise the error is transient
                raise
            return int(found[key].offset)

        return self._call(f"find an offset of {topic}/{partition}", list_offset)

    def _topic_id(self, topic: str, found: Mapping[str, Any]) -> str:
        topic_id = str(found.get("topic_id") or uuid.UUID(int=0))
        if uuid.UUID(topic_id).int == 0:
            raise LogError(
                f"kafka at {self._settings.bootstrap} reports no id for topic {topic}, so a deleted and recreated "
                "topic cannot be detected. hint: brokers from 2.8 on assign ids"
            )
        return topic_id
