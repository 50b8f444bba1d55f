"""The store of versions: files beside a ledger. A commit is durable as a file before CURRENT moves to it.

    versions/ledger.sqlite
    versions/g<generation>/s<i>-of-<n>/<sequence>.<epoch>.<rewrites>.version      one file per version
    versions/g<generation>/s<i>-of-<n>/<sequence>.<epoch>.<rewrites>.touched      keys touched by dropped ones before it

The epoch is in the name so that a writer that was taken over can never replace its successor's file.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, FencedError
from pipeline.formats.container import Draft
from pipeline.process.crash_point import reach_crash_point
from pipeline.versions.files import (
    check_file,
    draft_commit,
    finish_commit,
    read_commit,
    read_delta,
    read_outline,
    read_served,
    read_touched,
    read_version_manifest,
    write_commit,
)
from pipeline.versions.filters import merge_filters, split_filters
from pipeline.versions.ledger.ledger import Ledger, fenced_by_epoch
from pipeline.versions.ledger.version_rows import StagedVersion
from pipeline.versions.merge import merge_commits, merge_served
from pipeline.versions.retention import Retention, RetentionPlan
from pipeline.versions.state import (
    Commit,
    FieldChange,
    ServedEntries,
    TableChange,
    UInt64s,
    VersionId,
    VersionSummary,
    union_by_field,
    version_path,
)

_Content = TypeVar("_Content")
_THIN_EVERY_MS = 60_000
_ATTEMPTS = 3

DRAFTED_FROM_BYTES = 16 << 20
"""Rows of so many bytes take the disk longer than threads cost."""


class VersionStore:
    """All versions of a project's shards. Thread-safe, and safe beside other processes. Close it before forking."""

    def __init__(self, project: Project) -> None:
        """Open, making ledger and folder where there are none. Raises VersionError, DamagedError."""
        self.folder = project.versions
        self.ledger = Ledger(project.versions / "ledger.sqlite", project.clock)
        self._shards = project.config.logs.shards
        self._ladder = project.config.train.retention
        self._last_filters: dict[int, tuple[VersionId, Mapping[str, bytes]]] = {}
        self._thinned_at_ms: dict[int, int] = {}

    def close(self) -> None:
        self.ledger.close()

    def raise_epoch(self, shard: int) -> int:
        """Become the shard's only writer; returns the epoch to commit with.

        Raises RollbackError while a rollback is unfinished: carry that to its end first.
        """
        return self.ledger.raise_epoch(shard, self._shards)

    def epoch(self, shard: int) -> int:
        """The newest epoch; 0 where nobody has ever written."""
        return self.ledger.epoch(shard)

    def current(self, shard: int) -> VersionId | None:
        """The version training goes on from; None before the first."""
        return self.ledger.current(shard)

    def next_id(self, shard: int) -> VersionId:
        """The id of the version to commit next: numbers go on along the lineage, the generation is the newest."""
        current = self.ledger.current(shard)
        return VersionId(self.ledger.generation(), shard, self._shards, current.sequence + 1 if current else 1)

    @contextmanager
    def drafting(self, id: VersionId, epoch: int, tables: Mapping[str, TableChange]) -> Iterator[Draft | None]:
        """Begin the file of a version whose rows are known, beside whatever else is done; `commit` ends it.

        None where the rows are few: they are written soon enough. What was not committed leaves no file behind.
        """
        if sum(change.rows.nbytes for change in tables.values()) < DRAFTED_FROM_BYTES:
            yield None
            return
        with draft_commit(self.folder / version_path(id, epoch, 0), tables) as draft:
            yield draft

    def commit(self, commit: Commit, draft: Draft | None = None) -> None:
        """Write the version's file, then move CURRENT to it.

        Args:
            commit: the version.
            draft: its file where it has been begun.

        Raises:
            FencedError: somebody else took the shard over, or it was rolled back. Its file is removed again.
            VersionError: the disk is full or not writable. CURRENT has not moved.
        """
        epoch = self.ledger.epoch(commit.id.shard)
        if commit.epoch < epoch:  # early, to write no file; the ledger decides below
            raise fenced_by_epoch(commit.id, commit.epoch, epoch)
        staged = self.stage(commit, draft)
        reach_crash_point("trainer.before_commit")
        try:
            self.ledger.commit(staged)
        except FencedError:  # after any other failure the ledger may name the file; retention finds out
            (self.folder / staged.path).unlink(missing_ok=True)
            raise
        self._last_filters[commit.id.shard] = (commit.id, commit.filters)

    def stage(self, commit: Commit, draft: Draft | None = None) -> StagedVersion:
        """Make the version's file durable without moving CURRENT. Raises VersionError."""
        path, told = version_path(commit.id, commit.epoch, 0), commit
        parent, filters = self._last_filters.get(commit.id.shard, (None, {}))
        if not commit.full and parent is not None and parent == commit.parent:
            whole, changes = split_filters(commit.filters, filters)
            told = replace(commit, filters=whole, filter_changes=changes)
        size = finish_commit(draft, told) if draft else write_commit(self.folder / path, told)
        return StagedVersion(commit, path, size)

    def versions(self, shard: int) -> list[VersionSummary]:
        """All versions kept of a shard, undone ones too, by generation and sequence."""
        return self.ledger.versions(shard)

    def lineage(self, shard: int) -> list[VersionSummary]:
        """The versions CURRENT grew from, oldest first, CURRENT last."""
        return self.ledger.lineage(shard)

    def manifest(self, id: VersionId) -> dict[str, object]:
        """The header of the version's file (`schemas/manifest.json`). Raises VersionError, DamagedError."""
        return self._read(id, read_version_manifest)

    def restore(self, id: VersionId) -> Commit:
        """The whole state of a version: full, every row and served entry sorted by key, no removals.

        Raises:
            VersionError: the version is not there.
            DamagedError: a file of its chain is missing or damaged; says which.
        """
        commits = self._read_chain(id, read_commit)
        whole = merge_commits(commits)
        fields = {name: _without_removals(change) for name, change in whole.fields.items()}
        return replace(whole, parent=commits[-1].parent, first_at_ms=commits[-1].first_at_ms, fields=fields, full=True)

    def served(self, id: VersionId) -> dict[str, ServedEntries]:
        """By field, what serving holds at a version, sorted by key; reads only that. Raises as `restore`."""
        steps = self._read_chain(id, read_served)
        return {name: merge_served([step[name] for step in steps if name in step])[0] for name in steps[-1]}

    def outline(self, id: VersionId) -> Commit:
        """A version as committed, but without rows and served entries. Raises as `restore`."""
        commits = self._read_chain(id, read_outline)
        filters, _ = merge_filters(commits)
        return replace(commits[-1], filters=filters, filter_changes={})

    def check(self, id: VersionId) -> None:
        """Compare every file that restoring `id` needs with its checksums. Raises VersionError, DamagedError."""
        self._read_chain(id, check_file)

    def delta(self, id: VersionId) -> bytes:
        """The exact bytes published for a version. Raises VersionError, DamagedError."""
        return self._read(id, read_delta)

    def touched(self, after: VersionId, upto: VersionId) -> dict[str, UInt64s]:
        """By field, [t] uint64 sorted: served keys put or removed after `after`, up to and with `upto`.

        What retention dropped in between counts. Raises VersionError where `upto` did not grow from `after`.
        """

        def read() -> list[dict[str, UInt64s]]:
            versions = self.ledger.between(after, upto)
            paths = [path for version in versions for path in (version.touched_path, version.path)]
            return [read_touched(self.folder / path) for path in paths if path is not None]

        return union_by_field(self._patiently(upto, read))

    def pin(self, id: VersionId, pinned: bool = True) -> None:
        """Keep a version from retention, or release it. Raises VersionError."""
        self.ledger.pin(id, pinned)

    def plan_retention(self, shard: int, now_ms: int) -> RetentionPlan:
        """What `retain` would do; changes nothing."""
        return Retention(self.folder, self.ledger, self._ladder).plan(shard, now_ms)

    def retain(self, shard: int, now_ms: int) -> RetentionPlan:
        """Thin the shard's versions by the ladder, ages by the log's time `now_ms`, and delete files nothing needs.

        May be called after every commit: it looks only when the log's time has gone on by a minute since it last did.
        """
        if now_ms - self._thinned_at_ms.get(shard, now_ms - _THIN_EVERY_MS) < _THIN_EVERY_MS:
            return RetentionPlan()
        self._thinned_at_ms[shard] = now_ms
        return Retention(self.folder, self.ledger, self._ladder).act(shard, now_ms)

    def _read(self, id: VersionId, reader: Callable[[Path], _Content]) -> _Content:
        """Read a version's file."""
        return self._patiently(id, lambda: reader(self.folder / self.ledger.version(id).path))

    def _read_chain(self, id: VersionId, reader: Callable[[Path], _Content]) -> list[_Content]:
        """Read what restoring `id` needs, oldest first."""
        return self._patiently(id, lambda: [reader(self.folder / v.path) for v in self._whole_chain(id)])

    def _whole_chain(self, id: VersionId) -> list[VersionSummary]:
        chain = self.ledger.chain(id)
        if not chain[0].full and chain[0].parent is not None:
            raise DamagedError(
                f"version {id} needs {chain[0].parent}, which the ledger lacks. hint: restore the ledger"
            )
        return chain

    def _patiently(self, id: VersionId, attempt: Callable[[], _Content]) -> _Content:
        """Ask the ledger and read; once more where retention replaced a file in between. Raises DamagedError."""
        missing = ""
        for _ in range(_ATTEMPTS):
            try:
                return attempt()
            except FileNotFoundError as failure:
                missing = failure.filename
        raise DamagedError(
            f"{missing}, which version {id} needs, is missing. "
            "hint: restore the file from a backup, or go back to a version before it: springtide versions"
        )


def _without_removals(change: FieldChange) -> FieldChange:
    none = np.empty(0, np.uint64)
    return replace(change, removed=none, served_removed=none, served_touched=None)
