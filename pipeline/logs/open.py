"""Opens the log that the configuration names and makes the topics it lacks."""

from pipeline.ground.config import Config
from pipeline.ground.project import Project
from pipeline.logs.log import Log
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
    log = SqliteLog(project.logs, project.clock)
    for topic, partitions in topics_of(project.config).items():
        log.create_topic(topic, partitions)
    return log
