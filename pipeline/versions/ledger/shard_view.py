"""A shard as its own records and the common ones show it together. Pure functions of both states."""

from collections.abc import Mapping
from dataclasses import replace

from pipeline.versions.ledger.change_files import ChangeFiles
from pipeline.versions.ledger.common_state import CommonState
from pipeline.versions.ledger.halt import Halt
from pipeline.versions.ledger.published_pointers import PublishedPointer, latest_pointer
from pipeline.versions.ledger.shard_state import ShardState
from pipeline.versions.ledger.staged_version import own_file
from pipeline.versions.state import VersionId, VersionSummary


class ShardView:
    """One shard at one moment: use it while the ledger's states do not change."""

    def __init__(self, number: int, shard: ShardState, common: CommonState) -> None:
        self._number, self._shard, self._common = number, shard, common

    @property
    def restored(self) -> VersionSummary | None:
        """The version that a rollback restored, and which no trainer of the shard has taken over yet."""
        version, current = self._common.restored.get(self._number), self._shard.current
        if version is None or (current is not None and current.generation >= version.id.generation):
            return None
        return version

    @property
    def current(self) -> VersionId | None:
        """The version training continues from."""
        restored = self.restored
        return restored.id if restored else self._shard.current

    def version(self, id: VersionId) -> VersionSummary | None:
        """The summary of a retained version."""
        found, restored = self._shard.versions.get(id), self.restored
        if found is None and restored is not None and restored.id == id:
            found = restored
        return None if found is None else self._with_pin(found)

    def versions(self) -> list[VersionSummary]:
        """All retained versions, by generation and sequence."""
        found = {*self._shard.versions, *([self.restored.id] if self.restored else [])}
        summaries = (self.version(id) for id in sorted(found))
        return [summary for summary in summaries if summary is not None]

    def change_files(self) -> ChangeFiles:
        """The files that the versions are restored from."""
        files = list(self._shard.files.values())
        return ChangeFiles([*files, own_file(self.restored)] if self.restored else files)

    def last_sequences(self) -> Mapping[int, int]:
        """By generation, latest first, the last sequence that CURRENT descends from; empty before the first version."""
        at, found = self.current, dict[int, int]()
        while at is not None:
            found[at.generation] = at.sequence
            at = self._common.target_of(at.generation, self._number)
        return found

    def lineage(self) -> list[VersionSummary]:
        """The versions that CURRENT descends from, CURRENT last."""
        last = self.last_sequences()
        return [version for version in self.versions() if version.id.sequence <= last.get(version.id.generation, -1)]

    def latest_published(self, level: str) -> PublishedPointer | None:
        """The latest pointer of a level whose version CURRENT descends from."""
        of_others = (pointer for pointer in self._common.pointers.values() if pointer.id.shard == self._number)
        superseded = (self._shard.superseded, self._common.superseded.get(self._number))
        before = max((id for id in superseded if id is not None), default=None)
        pointers = (p for p in (*self._shard.pointers.values(), *of_others) if before is None or p.id >= before)
        return latest_pointer(pointers, level, self.last_sequences())

    @property
    def halt(self) -> Halt | None:
        """The halt in force."""
        halt = self._shard.halt
        return halt if halt and halt.number > self._common.resumed.get(self._number, 0) else None

    def protected(self) -> set[VersionId]:
        """Versions retention must not change: CURRENT, pinned, published, or part of an unfinished rollback."""
        by_number = {(version.id.generation, version.id.sequence): version for version in self.versions()}
        protected = {version.id for version in by_number.values() if version.pinned}
        pointers = [self.latest_published(level) for level in ("full", "incremental")]
        protected |= {by_number[last].id for last in self.last_sequences().items() if last in by_number}
        for record in self._common.rollbacks.values():
            if record.state in ("planned", "switched") and self._number in record.targets:
                ends = (record.targets[self._number], record.currents.get(self._number))
                protected |= {id for id in ends if id is not None}
        # After a rollback an earlier pointer is the latest again; its version may have been dropped.
        return protected | {p.id for p in pointers if p and (p.id.generation, p.id.sequence) in by_number}

    def _with_pin(self, version: VersionSummary) -> VersionSummary:
        return replace(version, pinned=version.id in self._common.pins)
