"""The topics that a configuration needs, with their partitions and retention.

Inputs must be retained for as long as an impression is held in the join plus the longest outage, because a join
without state starts there. Samples must be retained for as long as a rollback may go back, plus the time that bad data
may stay undetected.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.configuration.config import Config
from pipeline.configuration.streams.logs import SCHEMAS_TOPIC

_UNLIMITED = "-1"


@dataclass(frozen=True)
class TopicSpec:
    """What a topic must be.

    Attributes:
        retention_ms: for how long its records are needed; None means forever.
        reason: the durations that add up to it.
        compacted: whether its records have keys, of which the last record of each is enough.
    """

    name: str
    partitions: int
    retention_ms: int | None
    reason: str
    compacted: bool = False


@dataclass(frozen=True)
class SettingChange:
    """A setting of a topic whose value is insufficient: the value found, the value wanted, and the reason."""

    topic: str
    setting: str
    found: str
    wanted: str
    reason: str

    def __str__(self) -> str:
        return f"topic {self.topic} has {self.setting} {self.found}, {self.wanted} is wanted: {self.reason}"


def partition_counts(config: Config) -> dict[str, int]:
    """Every topic of the configuration with its number of partitions."""
    return {topic.name: topic.partitions for topic in topic_specs(config)}


def topic_specs(config: Config) -> list[TopicSpec]:
    """Every topic of the configuration."""
    names, logs, samples = config.topics, config.logs, config.samples
    longest = max(config.feedbacks, key=lambda feedback: feedback.window_s + feedback.horizon_s)
    held_s = longest.window_s + longest.horizon_s + samples.key_retention_s + config.events.disorder_s
    inputs_ms, samples_ms = _ms(held_s + logs.outage_s), _ms(logs.rollback_s + logs.detection_s)
    inputs_reason = (
        f"window {longest.window_s:g} s + horizon {longest.horizon_s:g} s + "
        f"key retention {samples.key_retention_s:g} s + disorder {config.events.disorder_s:g} s + "
        f"outage {logs.outage_s:g} s"
    )
    samples_reason = f"rollback {logs.rollback_s:g} s + detection {logs.detection_s:g} s"
    items = None if config.recall is None else config.recall.topic
    return [
        *(TopicSpec(name, logs.partitions, inputs_ms, inputs_reason) for name in config.input_topics.values()),
        TopicSpec(names.samples, logs.shards, samples_ms, samples_reason),
        TopicSpec(names.dead_letters, logs.shards, samples_ms, samples_reason),
        TopicSpec(names.deltas, logs.shards, samples_ms, samples_reason),
        TopicSpec(names.ledger, logs.shards + 1, None, "its writers remove what their snapshots hold"),
        TopicSpec(names.notices, 1, samples_ms, samples_reason),
        TopicSpec(SCHEMAS_TOPIC, 1, None, "events of any age need their schema"),
        *([] if items is None else [TopicSpec(items, 1, None, "an item of any age may be recalled", compacted=True)]),
    ]


def initial_settings(topic: TopicSpec, max_record_bytes: int) -> dict[str, str]:
    """The settings a topic is created with."""
    return {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(max_record_bytes),
        "retention.ms": _UNLIMITED if topic.retention_ms is None else str(topic.retention_ms),
        "retention.bytes": _UNLIMITED,
    }


def setting_changes(topic: TopicSpec, found: Mapping[str, str], max_record_bytes: int) -> list[SettingChange]:
    """The changes that an existing topic needs; limits and retention above the wanted value are left as they are.

    One that is to be compacted and is not keeps more than is needed; compacting would remove records without keys.

    >>> topic = TopicSpec("clicks", 1, 5_000, "window 5 s")
    >>> found = initial_settings(topic, 1_000) | {"retention.ms": "4000"}
    >>> [str(change) for change in setting_changes(topic, found, 1_000)]
    ['topic clicks has retention.ms 4000, 5000 is wanted: window 5 s']
    """
    wanted = initial_settings(topic, max_record_bytes)
    reasons = {
        "cleanup.policy": "compaction would lose records",
        "message.timestamp.type": "producers' clocks may run backwards, the broker's append time does not",
        "max.message.bytes": "logs.max_record_bytes",
        "retention.ms": topic.reason,
        "retention.bytes": "it would remove records before retention.ms",
    }
    return [
        SettingChange(topic.name, setting, found.get(setting, "unset"), wanted[setting], reason)
        for setting, reason in reasons.items()
        if not _sufficient(setting, found.get(setting), wanted[setting])
    ]


def _sufficient(setting: str, found: str | None, wanted: str) -> bool:
    if setting == "cleanup.policy" and wanted == "compact":
        return True
    if found is None or not setting.endswith((".ms", ".bytes")):
        return found == wanted
    return _amount(found) >= _amount(wanted)


def _amount(text: str) -> float:
    return math.inf if text == _UNLIMITED else float(text)


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)
