"""Opens the log that the configuration names, makes the topics it lacks, and warns of those that keep too little.

Engine `archive`: impressions and clicks are read from the archive in `logs.path`, all else lives in the embedded log
inside the state folder.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pipeline.configuration.config import SCHEMAS_TOPIC, revealed
from pipeline.configuration.project import Project
from pipeline.configuration.section import Secret
from pipeline.errors import ConfigError, LogError
from pipeline.logs.archive.archive_log import ArchiveLog
from pipeline.logs.archive.backfill_log import BackfillLog
from pipeline.logs.log import Log, check_partitions, runs_of
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.logs.topic_plan import TopicChange, WantedTopic, needed_changes, topics_of, wanted_topics

if TYPE_CHECKING:
    from pipeline.logs.kafka.kafka_log import KafkaLog

_talk = structlog.get_logger(__name__)


def open_log(project: Project) -> Log:
    """The project's log, with all its topics. Raises LogError where one has another number of partitions."""
    topics = topics_of(project.config)
    if project.config.logs.engine == "archive":
        return _open_backfill(project, topics)
    if project.config.logs.engine == "kafka":
        return _open_kafka(project)
    log = SqliteLog(project.logs, project.clock)
    for topic, partitions in topics.items():
        log.create_topic(topic, partitions)
    return log


def connect_kafka(project: Project) -> "KafkaLog":
    """The project's Kafka, no topic made or looked at. Raises LogError where no broker answers."""
    # The client takes a while to import and only this engine needs it.
    from pipeline.logs.kafka.calls import KafkaSettings
    from pipeline.logs.kafka.kafka_log import KafkaLog

    logs = project.config.logs
    settings = KafkaSettings(
        bootstrap=logs.bootstrap or "",
        prefix=logs.prefix,
        security={n: revealed(v, project.root) if isinstance(v, Secret) else v for n, v in logs.security.items()},
        compression=logs.compression,
        replication_factor=logs.replication_factor,
        max_record_bytes=logs.max_record_bytes,
        patience_s=logs.patience_s,
    )
    return KafkaLog(settings, project.clock, wanted_topics(project.config))


@dataclass(frozen=True)
class TopicPlan:
    """What to do so that a project's topics are as its configuration wants them."""

    missing: tuple[WantedTopic, ...]
    changes: tuple[TopicChange, ...]


def plan_topics(project: Project, log: "KafkaLog") -> TopicPlan:
    """Compare the topics on the cluster with what is wanted. Changes nothing."""
    there, most = set(log.topics()), project.config.logs.max_record_bytes
    wanted = wanted_topics(project.config)
    found = [(topic, log.settings_of(topic.name)) for topic in wanted if topic.name in there]
    changes = [change for topic, values in found for change in needed_changes(topic, values, most)]
    return TopicPlan(tuple(topic for topic in wanted if topic.name not in there), tuple(changes))


def create_topics(log: "KafkaLog", plan: TopicPlan) -> None:
    """Carry the plan out."""
    for topic in plan.missing:
        log.create_topic(topic.name, topic.partitions)
    for change in plan.changes:
        log.change_settings(change.topic, {change.setting: change.wanted})


def _open_kafka(project: Project) -> Log:
    log = connect_kafka(project)
    try:
        _check_inputs(project, log)
        for topic in wanted_topics(project.config):
            log.create_topic(topic.name, topic.partitions)
        for change in plan_topics(project, log).changes:
            _talk.warning(f"{change.told()}. run: springtide topics create")
    except BaseException:
        log.close()
        raise
    return log


def _check_inputs(project: Project, log: Log) -> None:
    """Inputs are where partitions may be added; of every other topic the number is fixed for its life."""
    there = set(log.topics())
    for topic in project.config.topics.inputs.values():
        if topic in there:
            check_partitions(log, topic, project.config.logs.partitions)


def _open_backfill(project: Project, topics: dict[str, int]) -> Log:
    if project.config.logs.path is None:
        raise ConfigError(
            "logs.path: missing, engine archive reads from there. hint: the folder that holds the archive"
        )
    archive, own = ArchiveLog(project.logs), SqliteLog(project.state / "logs", project.clock)
    inputs = (project.config.topics.impressions, project.config.topics.clicks)
    for topic, partitions in topics.items():
        if topic not in inputs:
            own.create_topic(topic, partitions)
        elif archive.partitions(topic) != partitions:
            raise LogError(
                f"topic {topic} has {archive.partitions(topic)} partitions in archive {project.logs}, "
                f"the configuration says {partitions}. hint: set logs.partitions"
            )
    _copy_schemas(archive, own)
    return BackfillLog(archive, own, inputs)


def _copy_schemas(archive: Log, own: Log) -> None:
    """Archived events need their writers' schemas, and new ones must have somewhere to go."""
    if SCHEMAS_TOPIC not in archive.topics():
        return
    known, archived = (
        [record.value for run in runs_of(log, SCHEMAS_TOPIC, 0) for record in run] for log in (own, archive)
    )
    missing = [value for value in archived if value not in known]
    if missing:
        own.append(SCHEMAS_TOPIC, 0, missing)
