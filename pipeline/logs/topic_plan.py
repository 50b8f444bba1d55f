"""The plan that brings the topics of a Kafka cluster in line with the configuration, and its execution."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.configuration.config import Config
from pipeline.logs.interface.topic_specs import SettingChange, TopicSpec, setting_changes, topic_specs

if TYPE_CHECKING:
    from pipeline.logs.kafka.kafka_log import KafkaLog


@dataclass(frozen=True)
class TopicPlan:
    """Topics to create, and settings of existing topics to change."""

    missing: tuple[TopicSpec, ...]
    changes: tuple[SettingChange, ...]


def plan_topics(config: Config, log: "KafkaLog") -> TopicPlan:
    """Compare the topics on the cluster with those of the configuration. Changes nothing."""
    existing, max_bytes = set(log.topics()), config.logs.max_record_bytes
    specs = topic_specs(config)
    settings = [(topic, log.settings_of(topic.name)) for topic in specs if topic.name in existing]
    changes = [change for topic, found in settings for change in setting_changes(topic, found, max_bytes)]
    return TopicPlan(tuple(topic for topic in specs if topic.name not in existing), tuple(changes))


def apply_plan(log: "KafkaLog", plan: TopicPlan) -> None:
    """Create the missing topics and change the settings."""
    for topic in plan.missing:
        log.create_topic(topic.name, topic.partitions)
    for change in plan.changes:
        log.change_settings(change.topic, {change.setting: change.wanted})
