"""The plan that brings the topics of a Kafka cluster in line with the configuration, and its execution."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.configuration.config import Config
from pipeline.errors import LogError
from pipeline.logs.interface.topic_specs import SettingChange, TopicSpec, setting_changes, topic_specs

if TYPE_CHECKING:
    from pipeline.logs.kafka.kafka_log import KafkaLog


@dataclass(frozen=True)
class ExistingTopic:
    """A topic on the cluster: its number of partitions, and its settings with the cluster's defaults."""

    partitions: int
    settings: Mapping[str, str]


@dataclass(frozen=True)
class TopicPlan:
    """What differs between the cluster and the configuration.

    Attributes:
        missing: topics to create.
        changes: settings of existing topics to change.
        unfit: existing topics with another number of partitions, with the number found; nothing changes it.
    """

    missing: tuple[TopicSpec, ...]
    changes: tuple[SettingChange, ...]
    unfit: tuple[tuple[TopicSpec, int], ...]

    def check_partitions(self) -> None:
        """Raise LogError, which names every topic that has another number of partitions than the configuration."""
        if not self.unfit:
            return
        problems = [
            f"topic {topic.name} has {found} partitions, {topic.partitions} are wanted" for topic, found in self.unfit
        ]
        raise LogError(
            f"{'; '.join(problems)}. hint: inputs have logs.partitions, schemas, notices and items 1, all others "
            "logs.shards; change these, or use other topics by [topics] or logs.prefix"
        )


def plan_topics(config: Config, log: "KafkaLog") -> TopicPlan:
    """Compare the topics on the cluster with those of the configuration. Changes nothing."""
    names = set(log.topics()) & {topic.name for topic in topic_specs(config)}
    return compare_topics(config, {name: ExistingTopic(log.partitions(name), log.settings_of(name)) for name in names})


def compare_topics(config: Config, existing: Mapping[str, ExistingTopic]) -> TopicPlan:
    """The plan for a cluster with these topics."""
    found = [(topic, existing[topic.name]) for topic in topic_specs(config) if topic.name in existing]
    max_bytes = config.logs.max_record_bytes
    return TopicPlan(
        tuple(topic for topic in topic_specs(config) if topic.name not in existing),
        tuple(change for topic, has in found for change in setting_changes(topic, has.settings, max_bytes)),
        tuple((topic, has.partitions) for topic, has in found if has.partitions != topic.partitions),
    )


def apply_plan(log: "KafkaLog", plan: TopicPlan) -> None:
    """Create the missing topics and change the settings."""
    for topic in plan.missing:
        log.create_topic(topic.name, topic.partitions)
    for change in plan.changes:
        log.change_settings(change.topic, {change.setting: change.wanted})
