"""The store of versions: a ledger in the log, and files. A commit's file is durable before CURRENT moves to it.

    versions/g<generation>/s<i>-of-<n>/<sequence>.<epoch>.version           one file per version: what it changed
    versions/g<generation>/s<i>-of-<n>/<sequence>.after-<sequence>.merged   what a range of versions changed
    versions/g<generation>/s<i>-of-<n>/<sequence>.after-<sequence>.touched  keys touched by dropped versions

The epoch is part of the name so that a fenced writer cannot replace its successor's file.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.arrays.types import UInt64s
from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, FencedError, VersionError
from pipeline.files.interface import StoredFile
from pipeline.formats.container import Container, Draft
from pipeline.logs.interface.log import Log
from pipeline.logs.open import open_log_of_ledger
from pipeline.process.crash_point import reach_crash_point
from pipeline.telemetry import metrics
from pipeline.versions.deltas.delta import Delta
from pipeline.versions.ledger.backup import LedgerBackup
from pipeline.versions.ledger.ledger import Ledger, fenced_by_epoch
from pipeline.versions.ledger.staged_version import StagedVersion
from pipeline.versions.ledger.topic import LEDGER_FIX
from pipeline.versions.quality import Quality
from pipeline.versions.state import (
    Commit,
    FieldChange,
    ServedEntries,
    TableChange,
    VersionId,
    VersionSummary,
    union_by_field,
    version_path,
)
from pipeline.versions.store.compaction import LEAST_FILES
from pipeline.versions.store.files import (
    FIX,
    check_file,
    check_sections,
    draft_commit,
    finish_commit,
    read_complete_delta,
    read_delta,
    read_outline,
    read_quality,
    read_served,
    read_state,
    read_tables,
    read_version_manifest,
    served_pieces,
    write_commit,
)
from pipeline.versions.store.listed_files import read_touched_by, read_version
from pipeline.versions.store.merged_file import opened
from pipeline.versions.store.retention import Retention, RetentionPlan
from pipeline.versions.store.row_reader import RowReader
from pipeline.versions.store.training_state import merge_training_state, split_training_state

_Content = TypeVar("_Content")
_RETENTION_EVERY_MS = 60_000
_READ_ATTEMPTS = 3

DRAFT_MIN_BYTES = 16 << 20
"""From so many bytes of rows on, writing takes longer than starting the draft's threads."""


class VersionStore:
    """All versions of a project's shards. Thread-safe, and safe with other processes. Close it before forking."""

    def __init__(self, project: Project, log: Log | None = None) -> None:
        """Open the store; its ledger is in `log`, by default the project's, which it opens. Raises LogError."""
        self.folder = project.version_files
        self._own_log = open_log_of_ledger(project) if log is None else None
        config, used = project.config, log or self._own_log
        assert used is not None
        backup = backup_of(project)
        self.ledger = Ledger(used, config.topics.ledger, config.logs.shards, project.clock, config.name, backup)
        self._shards = project.config.logs.shards
        self._policy = project.config.train.retention
        self._lock = project.versions / "retention.lock"
        self._last_training_state: dict[int, tuple[VersionId, Mapping[str, bytes]]] = {}
        self._retained_at_ms: dict[int, int] = {}
        self._unmerged: Counter[int] = Counter()
        """By shard, versions committed since files were last merged."""
        try:
            if (former := former_ledger(project)) is not None:
                raise VersionError(f"{former} is the ledger of a release before. run: springtide migrate-state")
            self.ledger.refuse_lost_records()
            self._refuse_lost()
        except BaseException:
            self.close()
            raise

    def _refuse_lost(self) -> None:
        """Raise DamagedError if the ledger never had a writer, but version files exist."""
        if any(self.ledger.epoch(shard) for shard in range(self._shards)):
            return
        found = sorted(name for name, file in self.folder.list() if file.base.endswith(".version"))
        if found:
            raise DamagedError(
                f"the ledger is empty, but {len(found)} version files are in {self.folder}, up to {found[-1]}. "
                f"hint: {LEDGER_FIX}"
            )

    def close(self) -> None:
        if self._own_log is not None:
            self._own_log.close()

    def raise_epoch(self, shard: int) -> int:
        """Become the shard's only writer; returns the epoch to commit with.

        Raises RollbackError while a rollback is unfinished: finish it first.
        """
        return self.ledger.raise_epoch(shard)

    def current(self, shard: int) -> VersionId | None:
        """The version training continues from; None before the first."""
        return self.ledger.current(shard)

    def next_id(self, shard: int) -> VersionId:
        """The id of the next version: the next sequence of the lineage, in the latest generation."""
        current = self.ledger.current(shard)
        return VersionId(self.ledger.generation(), shard, self._shards, current.sequence + 1 if current else 1)

    @contextmanager
    def drafting(self, id: VersionId, epoch: int, tables: Mapping[str, TableChange]) -> Iterator[Draft | None]:
        """Begin a version's file with its rows, in threads of its own; `commit` completes it.

        Yields None if the rows are below `DRAFT_MIN_BYTES`. Without a commit no file remains.
        """
        if sum(change.rows.nbytes for change in tables.values()) < DRAFT_MIN_BYTES:
            yield None
            return
        with draft_commit(self.folder / version_path(id, epoch), tables) as draft:
            yield draft

    def commit(self, commit: Commit, draft: Draft | None = None) -> None:
        """Write the version's file, then move CURRENT to it.

        Args:
            commit: the version.
            draft: its file, if it was begun.

        Raises:
            FencedError: another writer acquired the shard, or it was rolled back. The version's file is removed.
            VersionError: the disk is full or not writable. CURRENT has not moved.
        """
        epoch = self.ledger.epoch(commit.id.shard)
        if commit.epoch < epoch:  # early, to write no file; the ledger decides below
            raise fenced_by_epoch(commit.id, commit.epoch, epoch)
        staged = self.stage(commit, draft)
        reach_crash_point("trainer.before_commit")
        try:
            self.ledger.commit(staged)
        except FencedError:  # after any other failure the ledger may list the file; retention checks that
            (self.folder / staged.path).delete()
            raise
        self._unmerged[commit.id.shard] += 1
        metrics.COMMITTED_BYTES.labels(str(commit.id.shard)).inc(staged.file.size_bytes)
        self._last_training_state[commit.id.shard] = (commit.id, commit.training_state)

    def stage(self, commit: Commit, draft: Draft | None = None) -> StagedVersion:
        """Make the version's file durable without moving CURRENT. Raises VersionError."""
        path, stored = version_path(commit.id, commit.epoch), commit
        parent, parent_state = self._last_training_state.get(commit.id.shard, (None, {}))
        if not commit.full and parent is not None and parent == commit.parent:
            state, changes = split_training_state(commit.training_state, parent_state)
            stored = replace(commit, training_state=state, training_state_changes=changes)
        file = finish_commit(draft, stored) if draft else write_commit(self.folder / path, stored)
        return StagedVersion(commit, path, file)

    def stored_bytes(self, shard: int) -> int:
        """Bytes of the files that the shard's versions are restored from, and of those that describe them."""
        files = {file.path: file.file.size_bytes for file in self.ledger.change_files(shard).files()}
        return sum((files | {version.path: version.size_bytes for version in self.versions(shard)}).values())

    def versions(self, shard: int) -> list[VersionSummary]:
        """All retained versions of a shard, undone ones included, by generation and sequence."""
        return self.ledger.versions(shard)

    def lineage(self, shard: int) -> list[VersionSummary]:
        """The versions CURRENT descends from, CURRENT last."""
        return self.ledger.lineage(shard)

    def manifest(self, id: VersionId) -> dict[str, object]:
        """The header of the version's file (`schemas/manifest.json`). Raises VersionError, DamagedError."""
        return self._read(id, read_version_manifest)

    def quality(self, id: VersionId) -> Quality:
        """The quality of what serving holds at a version. Raises VersionError, DamagedError."""
        return self._read(id, read_quality)

    def restore(self, id: VersionId, *, with_rows: bool = True) -> Commit:
        """The complete state of a version: full, every row and served entry sorted by key, no removals.

        Without rows, those of all tables are empty: `RowReader.pieces` reads them in bounded memory.

        Raises:
            VersionError: the version does not exist.
            DamagedError: a file of its chain is missing or damaged; the message names it.
        """

        def read(files: list[Container]) -> Commit:
            outline, tables = self._outline(id, files), read_tables(files, with_rows=with_rows)
            fields = {name: _without_removals(change) for name, change in tables.items()}
            return replace(outline, fields=fields, full=True)

        return self._read_chain(id, read)

    def row_reader(self, row_bytes: Mapping[str, int]) -> RowReader:
        """Reads single rows of tables with rows of so many bytes, once it was given a version."""
        return RowReader(self.folder, self.ledger, row_bytes)

    def served(self, id: VersionId, keys: Mapping[str, UInt64s] | None = None) -> dict[str, ServedEntries]:
        """By table, the entries serving holds at a version, sorted by key. Raises as `restore`.

        With `keys`, the entries of these are right and others may be there, outdated; reading costs what these keys
        cost, not the table.
        """
        tables = self._read_chain(id, lambda files: read_served(files, keys))
        return {name: change.entries for name, change in tables.items()}

    def each_served(self, id: VersionId, tables: Iterable[str], take: Callable[[str, ServedEntries], None]) -> None:
        """Call `take(table, entries)` for all that serving holds at a version, in pieces of about 32 MiB of the files.

        A piece may be taken twice. Raises as `restore`.
        """

        def read(files: list[Container]) -> None:
            for name in sorted(tables):
                for entries in served_pieces(files, name):
                    take(name, entries)

        self._read_chain(id, read)

    def outline(self, id: VersionId) -> Commit:
        """A version as committed, without rows and served entries. Raises as `restore`."""
        return self._read_chain(id, lambda files: self._outline(id, files))

    def check(self, id: VersionId) -> None:
        """Verify the checksums of every file that restoring `id` reads. Raises VersionError, DamagedError."""

        def check_all(files: list[Container]) -> None:
            for file in files:
                check_sections(file)

        self._read(id, check_file)
        self._read_chain(id, check_all)

    def delta(self, id: VersionId) -> bytes:
        """The exact bytes published for a version. Raises VersionError, DamagedError."""
        return self._read(id, read_delta)

    def complete_delta(self, id: VersionId) -> Delta:
        """The delta published for a version, with complete dense weights. Raises VersionError, DamagedError."""
        return self._read(id, read_complete_delta)

    def touched(self, after: VersionId, upto: VersionId) -> dict[str, UInt64s]:
        """By table, [t] uint64 sorted: served keys put or removed after `after`, up to and including `upto`.

        Versions that retention dropped in between are included. Raises VersionError if `upto` does not descend from
        `after`.
        """

        def read() -> list[dict[str, UInt64s]]:
            versions = self.ledger.between(after, upto)
            return [part for version in versions for part in read_touched_by(self.folder, version)]

        return union_by_field(self._retried(upto, read))

    def retain(self, shard: int, now_ms: int) -> RetentionPlan:
        """Merge files, and apply the retention policy to the shard's versions, with ages by the log's time `now_ms`.

        May be called after every commit: versions are dropped only once the log's time has advanced by a minute. Takes
        as long as merges take. Raises VersionError, DamagedError.
        """
        retention = Retention(self.folder, self._lock, self.ledger, self._policy)
        if now_ms - self._retained_at_ms.get(shard, now_ms - _RETENTION_EVERY_MS) < _RETENTION_EVERY_MS:
            if self._unmerged[shard] >= LEAST_FILES:
                self._unmerged[shard] = 0
                retention.merge(shard)
            return RetentionPlan()
        self._retained_at_ms[shard] = now_ms
        return retention.act(shard, now_ms)

    def _read(self, id: VersionId, reader: Callable[[StoredFile], _Content]) -> _Content:
        """Read a version's file."""
        return self._retried(id, lambda: read_version(self.folder, self.ledger.version(id), reader))

    def _read_chain(self, id: VersionId, reader: Callable[[list[Container]], _Content]) -> _Content:
        """Read the files that restoring `id` needs, oldest first."""

        def read() -> _Content:
            with opened(self.folder, self.ledger.chain(id)) as files, files[-1].parsing():
                return reader(files)

        return self._retried(id, read)

    def _outline(self, id: VersionId, files: Sequence[Container]) -> Commit:
        """The version without rows, with the training state in `files`."""
        outline = read_version(self.folder, self.ledger.version(id), read_outline)
        state = merge_training_state([read_state(file) for file in files]).complete
        return replace(outline, training_state=state, training_state_changes={})

    def _retried(self, id: VersionId, attempt: Callable[[], _Content]) -> _Content:
        """Read ledger and files; again if retention replaced a file in between. Raises DamagedError."""
        missing = ""
        for _ in range(_READ_ATTEMPTS):
            try:
                return attempt()
            except FileNotFoundError as failure:
                missing = failure.filename
        raise DamagedError(f"{missing}, which version {id} needs, is missing. hint: {FIX}")


def former_ledger(project: Project) -> Path | None:
    """The ledger of a release before, which is to be moved to its topic."""
    path = project.versions / "ledger.sqlite"
    return path if path.exists() else None


def backup_of(project: Project) -> LedgerBackup:
    """Where the backups of the project's ledger are."""
    return LedgerBackup(project.version_files.folder("ledger"))


def _without_removals(change: FieldChange) -> FieldChange:
    none = np.empty(0, np.uint64)
    return replace(change, removed=none, served_removed=none, served_touched=None)
