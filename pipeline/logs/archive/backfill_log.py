"""A log whose input topics are an archive and whose own topics live in the embedded log: what a backfill runs on."""

from collections.abc import Sequence

from pipeline.logs.log import Fence, Headers, Log, ReadLimits, Record

_ONE_READ = ReadLimits()


class BackfillLog:
    """Hands every call on: topics in `inputs` to the archive, all others to `own`. Thread-safe as those are."""

    def __init__(self, archive: Log, own: Log, inputs: Sequence[str]) -> None:
        self._archive, self._own, self._inputs = archive, own, frozenset(inputs)

    def create_topic(self, topic: str, partitions: int) -> None:
        self._of(topic).create_topic(topic, partitions)

    def topics(self) -> list[str]:
        return sorted({*self._own.topics(), *(self._inputs & set(self._archive.topics()))})

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

    def read(self, topic: str, partition: int, start: int, limits: ReadLimits = _ONE_READ) -> list[Record]:
        return self._of(topic).read(topic, partition, start, limits)

    def append(
        self,
        topic: str,
        partition: int,
        values: Sequence[bytes],
        *,
        fence: Fence | None = None,
        headers: Headers | Sequence[Headers] | None = None,
    ) -> int:
        return self._of(topic).append(topic, partition, values, fence=fence, headers=headers)

    def acquire_fence(self, topic: str, partition: int) -> Fence:
        return self._of(topic).acquire_fence(topic, partition)

    def trim(self, topic: str, partition: int, before: int) -> None:
        self._of(topic).trim(topic, partition, before)

    def close(self) -> None:
        self._archive.close()
        self._own.close()

    def _of(self, topic: str) -> Log:
        return self._archive if topic in self._inputs else self._own
