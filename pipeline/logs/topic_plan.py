"""Which topics a configuration needs, with how many partitions, and for how long each must keep its records.

Inputs must reach back to where the join could have to begin again: everything an impression is held for, and the
longest outage. Samples must reach back as far as a rollback may go, and as long as bad data may stay unnoticed. Pure:
what to make and what to change is a plan, carried out by whoever has the cluster (`open.py`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.configuration.config import SCHEMAS_TOPIC, Config

_FOR_EVER = "-1"


@dataclass(frozen=True)
class WantedTopic:
    """What a topic must be.

    Attributes:
        partitions: how many.
        keep_ms: for how long its records are needed; None means for ever.
        why: the numbers that add up to it.
    """

    name: str
    partitions: int
    keep_ms: int | None
    why: str


@dataclass(frozen=True)
class TopicChange:
    """A setting of a topic that does not do: what it is, what it should be, and why."""

    topic: str
    setting: str
    found: str
    wanted: str
    why: str

    def told(self) -> str:
        return f"topic {self.topic} has {self.setting} {self.found}, {self.wanted} is wanted: {self.why}"


def topics_of(config: Config) -> dict[str, int]:
    """Every topic of the configuration with its number of partitions."""
    return {topic.name: topic.partitions for topic in wanted_topics(config)}


def wanted_topics(config: Config) -> list[WantedTopic]:
    """Every topic of the configuration."""
    names, logs, samples = config.topics, config.logs, config.samples
    held_s = samples.window_s + samples.horizon_s + samples.remember_s + config.events.disorder_s
    inputs_ms, samples_ms = _ms(held_s + logs.outage_s), _ms(logs.rollback_s + logs.detection_s)
    inputs_why = (
        f"window {samples.window_s:g} s + horizon {samples.horizon_s:g} s + remember {samples.remember_s:g} s + "
        f"disorder {config.events.disorder_s:g} s + outage {logs.outage_s:g} s"
    )
    samples_why = f"rollback {logs.rollback_s:g} s + detection {logs.detection_s:g} s"
    return [
        WantedTopic(names.impressions, logs.partitions, inputs_ms, inputs_why),
        WantedTopic(names.clicks, logs.partitions, inputs_ms, inputs_why),
        WantedTopic(names.samples, logs.shards, samples_ms, samples_why),
        WantedTopic(names.dead_letters, logs.shards, samples_ms, samples_why),
        WantedTopic(names.deltas, logs.shards, samples_ms, samples_why),
        WantedTopic(names.notices, 1, samples_ms, samples_why),
        WantedTopic(SCHEMAS_TOPIC, 1, None, "events of any age need their schema"),
    ]


def first_values(topic: WantedTopic, max_record_bytes: int) -> dict[str, str]:
    """The settings a topic is made with."""
    return {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(max_record_bytes),
        "retention.ms": _FOR_EVER if topic.keep_ms is None else str(topic.keep_ms),
        "retention.bytes": _FOR_EVER,
    }


def needed_changes(topic: WantedTopic, found: Mapping[str, str], max_record_bytes: int) -> list[TopicChange]:
    """What is wrong with the settings of a topic that is there: it may keep more than wanted, never less.

    >>> topic = WantedTopic("clicks", 1, 5_000, "window 5 s")
    >>> held = first_values(topic, 1_000) | {"retention.ms": "4000"}
    >>> [change.told() for change in needed_changes(topic, held, 1_000)]
    ['topic clicks has retention.ms 4000, 5000 is wanted: window 5 s']
    """
    wanted = first_values(topic, max_record_bytes)
    reasons = {
        "cleanup.policy": "compaction would lose records",
        "message.timestamp.type": "producers' clocks run backwards, the broker's does not",
        "max.message.bytes": "logs.max_record_bytes",
        "retention.ms": topic.why,
        "retention.bytes": "it would drop records before their time",
    }
    return [
        TopicChange(topic.name, setting, found.get(setting, "unset"), wanted[setting], why)
        for setting, why in reasons.items()
        if not _does(setting, found.get(setting), wanted[setting])
    ]


def _does(setting: str, found: str | None, wanted: str) -> bool:
    if found is None or not setting.endswith((".ms", ".bytes")):
        return found == wanted
    return _amount(found) >= _amount(wanted)


def _amount(text: str) -> float:
    return math.inf if text == _FOR_EVER else float(text)


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)
