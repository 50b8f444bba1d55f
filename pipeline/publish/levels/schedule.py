"""Which file of a shard is to be published next, by the log's time and by what was published. Changes nothing."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.configuration.model.training import Publish
from pipeline.errors import VersionError
from pipeline.versions.deltas.delta import Delta, Level, decode_delta
from pipeline.versions.ledger.published_pointers import PublishedPointer
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore


class PublishSchedule:
    """When files of one shard are due, of the whole model or of a part, and of which level. Not thread-safe."""

    def __init__(self, policy: Publish, versions: VersionStore, shard: int, part: str | None = None) -> None:
        """`part`: the folder of a part's files."""
        self._policy, self._versions, self._shard, self._part = policy, versions, shard, part

    def pointer_level(self, level: str) -> str:
        """The level under which the ledger records a file."""
        return level if self._part is None else f"{level}/{self._part}"

    def on_command(self, level: Level) -> Level | None:
        """What an operator's command to publish `level` publishes; None if nothing changed since the latest file."""
        id = self._versions.current(self._shard)
        if id is None or level == "full":
            return "full"
        if self.published_sequence(id) == id.sequence:
            return None
        return "full" if self.needs_full() else level

    def full_due(self, log_ms: int) -> bool:
        """Whether a full is due at the log's time `log_ms`: the delta of the next version has to send every row."""
        return self.full_due_by_time(log_ms) or (self.incremental_due_by_time(log_ms) and self.needs_full())

    def full_due_by_time(self, log_ms: int) -> bool:
        """Whether `publish.full_every_s` has passed since the latest full; true without one."""
        return self._is_due(("full",), self._policy.full_every_s, log_ms)

    def incremental_due_by_time(self, log_ms: int) -> bool:
        """Whether `publish.incremental_every_s` has passed since the latest file; a full is one too."""
        return self._is_due(("full", "incremental"), self._policy.incremental_every_s, log_ms)

    def needs_full(self) -> bool:
        """Whether CURRENT needs a full: its generation has no file, or a delta since the latest file was dropped."""
        id = self._versions.current(self._shard)
        return id is not None and self._start_of_incremental(id) is None

    def _is_due(self, levels: Sequence[str], every_s: float | None, log_ms: int) -> bool:
        """Whether `every_s` has passed since the latest file of `levels`."""
        if every_s is None:
            return False
        published_at_ms = [at_ms for level in levels if (at_ms := self._published_at_ms(level)) is not None]
        if not published_at_ms:
            return True
        return log_ms - max(published_at_ms) >= every_s * 1000

    def _published_at_ms(self, level: str) -> int | None:
        """The latest event time in the latest file of a level; None without a file, or if its version was dropped.

        A version may have been dropped because after a rollback an earlier file is the latest again.
        """
        pointer = self._latest(level)
        try:
            return self._versions.ledger.version(pointer.id).last_at_ms if pointer else None
        except VersionError:
            return None

    def _latest(self, level: str) -> PublishedPointer | None:
        return self._versions.ledger.published.latest(self.pointer_level(level), self._shard)

    def published_sequence(self, current: VersionId) -> int | None:
        """The latest sequence published as a file in CURRENT's generation."""
        pointers = [self._latest(level) for level in ("full", "incremental")]
        sequences = [p.id.sequence for p in pointers if p and p.id.generation == current.generation]
        return max(sequences, default=None)

    def deltas_since_published(self, current: VersionId) -> list[Delta]:
        """The deltas from the latest published file to CURRENT; empty if some were dropped or they cross a rollback.

        Raises VersionError, DamagedError.
        """
        start = self._start_of_incremental(current)
        sequences = range(current.sequence if start is None else start, current.sequence)
        return [decode_delta(self._versions.delta(replace(current, sequence=n + 1))) for n in sequences]

    def _start_of_incremental(self, current: VersionId) -> int | None:
        """The sequence that an incremental up to CURRENT starts at; None if some delta of it was dropped.

        A generation begins with serving's nothing, or with a reverse delta, which no incremental can hold. After that
        each version has one realtime delta, from the sequence before.
        """
        start = self.published_sequence(current)
        if start is None and current.generation > 0:
            return None
        return start or 0 if self._versions.ledger.retains_all(start or 0, current) else None
