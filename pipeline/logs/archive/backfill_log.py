"""The log of a backfill: input topics are read from an archive, all other topics are in an embedded log."""

from collections.abc import Sequence

from pipeline.configuration.project import Project
from pipeline.configuration.streams.logs import SCHEMAS_TOPIC
from pipeline.errors import ConfigError, LogError
from pipeline.logs.archive.archive_log import ArchiveLog
from pipeline.logs.interface.log import Fence, Headers, Log, ReadLimits, Record, read_to_end
from pipeline.logs.interface.topic_specs import partition_counts
from pipeline.logs.sqlite.sqlite_log import SqliteLog

_DEFAULT_LIMITS = ReadLimits()


class BackfillLog:
    """Delegates calls for topics in `inputs` to `archive`, all others to `embedded`. Thread-safe as those are."""

    def __init__(self, archive: Log, embedded: Log, inputs: Sequence[str]) -> None:
        self._archive, self._embedded, self._inputs = archive, embedded, frozenset(inputs)

    def create_topic(self, topic: str, partitions: int) -> None:
        self._of(topic).create_topic(topic, partitions)

    def topics(self) -> list[str]:
        return sorted({*self._embedded.topics(), *(self._inputs & set(self._archive.topics()))})

    def partitions(self, topic: str) -> int:
        return self._of(topic).partitions(topic)

    def log_id(self, topic: str) -> str:
        return self._of(topic).log_id(topic)

    def delete_topic(self, topic: str) -> None:
        self._of(topic).delete_topic(topic)

    def begin_offset(self, topic: str, partition: int) -> int:
        return self._of(topic).begin_offset(topic, partition)

    def end_offset(self, topic: str, partition: int) -> int:
        return self._of(topic).end_offset(topic, partition)

    def offset_at(self, topic: str, partition: int, at_ms: int) -> int:
        return self._of(topic).offset_at(topic, partition, at_ms)

    def read(self, topic: str, partition: int, start: int, limits: ReadLimits = _DEFAULT_LIMITS) -> list[Record]:
        return self._of(topic).read(topic, partition, start, limits)

    def append(
        self,
        topic: str,
        partition: int,
        values: Sequence[bytes],
        *,
        fence: Fence | None = None,
        headers: Headers | Sequence[Headers] | None = None,
        keys: Sequence[bytes] | None = None,
    ) -> int:
        return self._of(topic).append(topic, partition, values, fence=fence, headers=headers, keys=keys)

    def acquire_fence(self, topic: str, partition: int) -> Fence:
        return self._of(topic).acquire_fence(topic, partition)

    def trim(self, topic: str, partition: int, before: int) -> None:
        self._of(topic).trim(topic, partition, before)

    def close(self) -> None:
        self._archive.close()
        self._embedded.close()

    def _of(self, topic: str) -> Log:
        return self._archive if topic in self._inputs else self._embedded


def open_backfill(project: Project) -> BackfillLog:
    """Inputs from the archive in `logs.path`, all other topics in an embedded log inside the state folder."""
    if project.config.logs.path is None:
        raise ConfigError("logs.path: missing, engine archive reads the archive there. hint: set it to its folder")
    archive, embedded = ArchiveLog(project.logs), SqliteLog(project.state / "logs", project.clock)
    inputs = tuple(project.config.input_topics.values())
    for topic, partitions in partition_counts(project.config).items():
        if topic not in inputs:
            embedded.create_topic(topic, partitions)
        elif archive.partitions(topic) != partitions:
            raise LogError(
                f"topic {topic} has {archive.partitions(topic)} partitions in archive {project.logs}, "
                f"logs.partitions is {partitions}. hint: set logs.partitions"
            )
    _copy_schemas(archive, embedded)
    return BackfillLog(archive, embedded, inputs)


def _copy_schemas(archive: Log, embedded: Log) -> None:
    """Copy the writer schemas that the archived events need; new ones are appended to the embedded topic."""
    if SCHEMAS_TOPIC not in archive.topics():
        return
    existing, archived = (
        [record.value for records in read_to_end(log, SCHEMAS_TOPIC, 0) for record in records]
        for log in (embedded, archive)
    )
    missing = [value for value in archived if value not in existing]
    if missing:
        embedded.append(SCHEMAS_TOPIC, 0, missing)
