"""Published pointers of the ledger: a trainer records them under its fence, others in the common partition."""

from pipeline.errors import FencedError
from pipeline.process.clock import Clock
from pipeline.versions.ledger.published_pointers import PublishedPointer
from pipeline.versions.ledger.records import Published, Superseded
from pipeline.versions.ledger.shard_view import ShardView
from pipeline.versions.ledger.topic import LedgerTopic
from pipeline.versions.state import VersionId


class PublishedTable:
    """Thread-safe."""

    def __init__(self, topic: LedgerTopic, clock: Clock) -> None:
        self._topic, self._clock = topic, clock

    def set(self, level: str, id: VersionId, path: str) -> None:
        """Record that `id` was published; for a version recorded before, only the path changes."""
        self._record(id.shard, Published(pointer=PublishedPointer(level, id, path, self._clock.now_ms())))

    def latest(self, level: str, shard: int) -> PublishedPointer | None:
        """The latest pointer of a level whose version CURRENT descends from; a version that was undone is skipped."""
        with self._topic.reading(shard) as states:
            return ShardView(shard, *states).latest_published(level)

    def remove_before(self, id: VersionId) -> None:
        """Remove the shard's pointers to versions before `id`, those of earlier generations included."""
        self._record(id.shard, Superseded(before=id))

    def _record(self, shard: int, record: Published | Superseded) -> None:
        """In the shard's partition if this process writes it."""
        try:
            self._topic.append(shard, record)
        except FencedError:
            self._topic.append_common(lambda _: record)
