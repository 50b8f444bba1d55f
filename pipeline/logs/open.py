"""Opens the log that the configuration selects and creates missing topics."""

from typing import TYPE_CHECKING

import structlog

from pipeline.configuration.environment import read_secret
from pipeline.configuration.project import Project
from pipeline.configuration.section import Secret
from pipeline.logs.archive.backfill_log import open_backfill
from pipeline.logs.interface.checks import check_partitions_read
from pipeline.logs.interface.log import Log
from pipeline.logs.interface.topic_specs import partition_counts, topic_specs
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.logs.topic_plan import plan_topics

if TYPE_CHECKING:
    from pipeline.logs.kafka.kafka_log import KafkaLog

logger = structlog.get_logger(__name__)


def open_log(project: Project) -> Log:
    """The project's log with all its topics. Raises LogError if a topic has another number of partitions."""
    engine = project.config.logs.engine
    if engine == "archive":
        return open_backfill(project)
    if engine == "kafka":
        return _open_kafka(project)
    log = SqliteLog(project.logs, project.clock)
    for topic, partitions in partition_counts(project.config).items():
        log.create_topic(topic, partitions)
    return log


def open_log_of_ledger(project: Project) -> Log:
    """The project's log, for readers of versions; of an embedded one the ledger's topic alone. Raises LogError."""
    logs, topic = project.config.logs, project.config.topics.ledger
    if logs.engine == "kafka":
        return open_log(project)
    log = SqliteLog(project.logs if logs.engine == "sqlite" else project.state / "logs", project.clock)
    log.create_topic(topic, partition_counts(project.config)[topic])
    return log


def connect_kafka(project: Project) -> "KafkaLog":
    """The project's Kafka log; topics are neither created nor checked. Raises LogError if no broker is available."""
    # The client takes a while to import, and only this engine needs it.
    from pipeline.logs.kafka.kafka_log import KafkaLog
    from pipeline.logs.kafka.settings import KafkaSettings

    logs = project.config.logs
    settings = KafkaSettings(
        bootstrap=logs.bootstrap or "",
        prefix=logs.prefix,
        security={n: read_secret(v, project.root) if isinstance(v, Secret) else v for n, v in logs.security.items()},
        compression=logs.compression,
        replication_factor=logs.replication_factor,
        max_record_bytes=logs.max_record_bytes,
        retry_timeout_s=logs.retry_timeout_s,
    )
    return KafkaLog(settings, project.clock, topic_specs(project.config))


def _open_kafka(project: Project) -> Log:
    log, config = connect_kafka(project), project.config
    try:
        existing = set(log.topics())
        # Only inputs may get partitions later; of every other topic the number is fixed.
        for topic in config.input_topics.values():
            if topic in existing:
                check_partitions_read(log, topic, config.logs.partitions)
        plan = plan_topics(config, log)
        plan.check_partitions()
        for missing in plan.missing:
            log.create_topic(missing.name, missing.partitions)
        for change in plan.changes:
            logger.warning(f"{change}. run: springtide topics create")
    except BaseException:
        log.close()
        raise
    return log
