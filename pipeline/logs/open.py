"""Opens the log that the configuration names and makes the topics it lacks.

Engine `archive`: impressions and clicks are read from the archive in `logs.path`, all else lives in the embedded log
inside the state folder.
"""

from pipeline.ground.config import Config
from pipeline.ground.errors import ConfigError, LogError
from pipeline.ground.project import Project
from pipeline.logs.archive import ArchiveLog
from pipeline.logs.backfill import BackfillLog
from pipeline.logs.log import Log, runs_of
from pipeline.logs.registry import SCHEMAS_TOPIC
from pipeline.logs.sqlite import SqliteLog


def topics_of(config: Config) -> dict[str, int]:
    """Every topic of the configuration with its number of partitions."""
    names, logs = config.topics, config.logs
    return {
        names.impressions: logs.partitions,
        names.clicks: logs.partitions,
        names.samples: logs.shards,
        names.dead_letters: logs.shards,
        names.deltas: logs.shards,
        names.notices: 1,
        SCHEMAS_TOPIC: 1,
    }


def open_log(project: Project) -> Log:
    """The project's log, with all its topics. Raises LogError where one has another number of partitions."""
    topics = topics_of(project.config)
    if project.config.logs.engine == "archive":
        return _open_backfill(project, topics)
    log = SqliteLog(project.logs, project.clock)
    for topic, partitions in topics.items():
        log.create_topic(topic, partitions)
    return log


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
