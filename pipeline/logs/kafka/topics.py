"""Topics of a Kafka cluster: their ids, offsets and settings; making, changing, trimming, deleting them."""

import contextlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from kafka import IsolationLevel, KafkaAdminClient, OffsetSpec, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from pipeline.errors import LogError
from pipeline.logs.kafka.calls import KafkaSettings, patiently
from pipeline.logs.kafka.client import start_client
from pipeline.logs.kafka.preflight import knock
from pipeline.process.clock import Clock

_PAUSE_S = 0.02
Found = TypeVar("Found")


@dataclass(frozen=True)
class Topic:
    """A topic as the cluster has it: the id of this making of it, and how many partitions."""

    log_id: str
    partitions: int


class KafkaTopics:
    """Thread-safe: every call runs on the client's own thread. Do not carry it over a fork."""

    def __init__(self, settings: KafkaSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        if settings.security:
            patiently(settings, clock, "connect", lambda: knock(settings))
        self._admin: Any = patiently(settings, clock, "connect", lambda: start_client(settings, KafkaAdminClient))

    def names(self) -> list[str]:
        """All topics under our prefix, sorted, without it."""
        prefix = self._settings.prefix
        names: list[str] = self._ask("list topics", self._admin.list_topics)
        return sorted(n.removeprefix(prefix) for n in names if n.startswith(prefix) and not n.startswith("__"))

    def find(self, topic: str) -> Topic | None:
        """The topic as it is now; None where there is none."""

        def ask() -> Topic | None:
            (found,) = self._admin.describe_topics([self._name(topic)])
            failure = for_code(found["error_code"])
            if failure is UnknownTopicOrPartitionError:
                return None
            if found["error_code"] != 0:
                raise failure(topic)
            return Topic(self._topic_id(topic, found), len(found["partitions"]))

        return self._ask(f"look up topic {topic}", ask)

    def get(self, topic: str) -> Topic:
        """The topic as it is now. Raises LogError where there is none."""
        found = self.find(topic)
        if found is None:
            raise LogError(f"topic {topic} does not exist at {self._settings.bootstrap}. run: springtide topics create")
        return found

    def make(self, topic: str, partitions: int, values: Mapping[str, str]) -> None:
        """Make a topic; nothing happens where another process was first."""
        wanted = {
            "num_partitions": partitions,
            "replication_factor": self._settings.replication_factor or -1,
            "configs": dict(values),
        }

        def ask() -> None:
            with contextlib.suppress(TopicAlreadyExistsError):
                self._admin.create_topics({self._name(topic): wanted})
            self._admin.wait_for_topics([self._name(topic)])

        self._ask(f"make topic {topic}", ask)

    def delete(self, topic: str) -> None:
        """Delete a topic and wait until the cluster no longer shows it."""
        log_id = self.get(topic).log_id
        self._ask(f"delete topic {topic}", lambda: self._admin.delete_topics([self._name(topic)]))
        ends_s = self._clock.monotonic_s() + self._settings.patience_s
        while (found := self.find(topic)) is not None and found.log_id == log_id:
            if self._clock.monotonic_s() > ends_s:
                raise LogError(f"topic {topic} is still there {self._settings.patience_s:g} s after it was deleted")
            self._clock.wait(_PAUSE_S)

    def values(self, topic: str) -> dict[str, str]:
        """The topic's settings, the cluster's defaults among them."""
        wanted = ConfigResource(ConfigResourceType.TOPIC, self._name(topic))
        found = self._ask(
            f"read the settings of topic {topic}",
            lambda: self._admin.describe_configs([wanted], config_filter="all"),
        )
        return {key: str(held["value"]) for key, held in found["topic"][self._name(topic)].items()}

    def change(self, topic: str, values: Mapping[str, str]) -> None:
        """Change settings of a topic."""
        wanted = ConfigResource(ConfigResourceType.TOPIC, self._name(topic), dict(values))
        self._ask(f"change the settings of topic {topic}", lambda: self._admin.alter_configs([wanted]))

    def begin_offset(self, topic: str, partition: int) -> int:
        return self._offset(topic, partition, OffsetSpec.EARLIEST, IsolationLevel.READ_COMMITTED)

    def stable_offset(self, topic: str, partition: int) -> int:
        """Below it every transaction is decided: the end for readers."""
        return self._offset(topic, partition, OffsetSpec.LATEST, IsolationLevel.READ_COMMITTED)

    def high_offset(self, topic: str, partition: int) -> int:
        """The end with what is not decided yet."""
        return self._offset(topic, partition, OffsetSpec.LATEST, IsolationLevel.READ_UNCOMMITTED)

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int | None:
        """The first offset of that time or later; None where there is none."""
        found = self._offset(topic, partition, max(at_ms, 0), IsolationLevel.READ_COMMITTED)
        return None if found < 0 else found

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Delete the records below `before`."""
        place = TopicPartition(self._name(topic), partition)
        self._ask(f"trim {topic}/{partition}", lambda: self._admin.delete_records({place: before}))

    def close(self) -> None:
        self._admin.close()

    def _name(self, topic: str) -> str:
        return self._settings.prefix + topic

    def _ask(self, what: str, call: Callable[[], Found]) -> Found:
        return patiently(self._settings, self._clock, what, call)

    def _offset(self, topic: str, partition: int, wanted: int, isolation: IsolationLevel) -> int:
        place = TopicPartition(self._name(topic), partition)

        def ask() -> int:
            try:
                found = self._admin.list_partition_offsets({place: wanted}, isolation_level=isolation)
            except UnknownTopicOrPartitionError:
                self.get(topic)  # it may be gone for good
                raise
            return int(found[place].offset)

        return self._ask(f"find an offset of {topic}/{partition}", ask)

    def _topic_id(self, topic: str, found: Mapping[str, Any]) -> str:
        given = str(found.get("topic_id") or uuid.UUID(int=0))
        if uuid.UUID(given).int == 0:
            raise LogError(
                f"kafka at {self._settings.bootstrap} gives topic {topic} no id, so one made again could not be told "
                "apart. hint: brokers from 2.8 on give ids"
            )
        return given
