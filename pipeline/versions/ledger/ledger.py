"""The ledger: which versions exist, which one is CURRENT, who may move it, and what every rollback must preserve.

One SQLite file for all shards of a project. CURRENT moves in one transaction that compares epoch and CURRENT before it
writes, so a writer that was fenced, even one that paused in between, cannot move it. Reads never take the write lock.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import DamagedError, FencedError, RollbackError, VersionError
from pipeline.process.clock import Clock
from pipeline.versions.ledger.backup import counts_in_backup, fewer_than, write_backup
from pipeline.versions.ledger.change_files import (
    ChangeFile,
    ChangeFiles,
    change_file_of,
    delete_change_files,
    insert_change_file,
)
from pipeline.versions.ledger.database import Database
from pipeline.versions.ledger.halt import HaltTable
from pipeline.versions.ledger.published_table import PublishedTable
from pipeline.versions.ledger.quarantine import Quarantine, QuarantineTable
from pipeline.versions.ledger.rollback_rows import RollbackRecord, insert_rollback, rollback_of, update_rollback
from pipeline.versions.ledger.schema import SCHEMA
from pipeline.versions.ledger.version_rows import (
    BY_ID,
    StagedVersion,
    delete_version,
    insert_version,
    summary_of,
    version_key,
)
from pipeline.versions.state import VersionId, VersionSummary

LEDGER_FILE = "ledger.sqlite"

_ANCESTORS = """
WITH RECURSIVE chain AS (
    SELECT * FROM version WHERE shard = ? AND generation = ? AND sequence = ?
    UNION ALL
    SELECT v.* FROM version v JOIN chain c
        ON v.shard = c.shard AND v.generation = c.parent_generation AND v.sequence = c.parent_sequence
    WHERE {follow}
) SELECT * FROM chain ORDER BY sequence
"""


LEDGER_FIX = "stop the trainer, then run: springtide restore-ledger"
"""What an operator does about a damaged or lost ledger."""


class Ledger:
    """Thread-safe, and safe with other processes on the same file. Close it before forking.

    Attributes:
        published: which versions were published as files.
        quarantines: what training must not read.
        halts: which shards bad data has stopped.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        """Open the ledger at `path`; without versions beside it, a missing one is created.

        Raises:
            DamagedError: something in it is not as it was written, it is older than its backup, or it is lost and
                version files lie beside it.
            VersionError: it cannot be opened.
        """
        folder = path.parent
        counts = counts_in_backup(folder)
        self._database = Database(
            path, SCHEMA, LEDGER_FIX, lambda: _refuse_lost(path), lambda content: write_backup(folder, content)
        )
        self._clock = clock
        if lost := fewer_than(counts, self._database.read):
            self.close()
            raise DamagedError(f"{path} has lost transactions: it has {lost}. hint: {LEDGER_FIX}")
        self.published = PublishedTable(self._database, clock, self._last_sequences)
        self.quarantines = QuarantineTable(self._database, clock)
        self.halts = HaltTable(self._database, clock)

    def close(self) -> None:
        self._database.close()

    # Writers and CURRENT.

    def raise_epoch(self, shard: int, shards: int) -> int:
        """Become the shard's only writer: every earlier epoch is fenced from now on. Returns the new epoch.

        Raises RollbackError while a rollback is unfinished: training must not continue from a state that is being
        undone.
        """
        with self._database.transaction(backup=False) as connection:
            self._require_no_planned_rollback()
            return _raise_epoch(connection, shard, shards)

    def epoch(self, shard: int) -> int:
        """The latest epoch; 0 if the shard never had a writer."""
        rows = self._database.read("SELECT epoch FROM shard WHERE shard = ?", (shard,))
        return int(rows[0]["epoch"]) if rows else 0

    def current(self, shard: int) -> VersionId | None:
        """The version training continues from; None before the first."""
        rows = self._database.read("SELECT * FROM shard WHERE shard = ? AND sequence IS NOT NULL", (shard,))
        return VersionId(rows[0]["generation"], shard, rows[0]["shards"], rows[0]["sequence"]) if rows else None

    def shards(self) -> list[int]:
        """Shards that have a CURRENT, ascending."""
        rows = self._database.read("SELECT shard FROM shard WHERE sequence IS NOT NULL ORDER BY shard")
        return [int(row["shard"]) for row in rows]

    def generation(self) -> int:
        """The generation of new versions: 0, plus one for each rollback."""
        return int(self._database.read("SELECT coalesce(max(generation), 0) AS latest FROM generation")[0]["latest"])

    def commit(self, staged: StagedVersion) -> None:
        """Record a version and move CURRENT to it, atomically.

        Raises FencedError if the epoch is not the latest or CURRENT is not the version's parent.
        """
        with self._database.transaction(backup=False) as connection:
            latest = self.generation()
            if staged.commit.id.generation != latest:
                raise FencedError(
                    f"version {staged.commit.id} is of an earlier generation, the latest is {latest}. "
                    "hint: the model was rolled back; restart this trainer"
                )
            self._move_current(connection, staged, staged.commit.parent)

    def adopt(self, staged: StagedVersion) -> None:
        """Record a version that was committed after the backup which this ledger was restored from.

        Raises FencedError if CURRENT is not its parent.
        """
        commit = staged.commit
        with self._database.transaction(backup=False) as connection:
            _raise_epoch(connection, commit.id.shard, commit.id.shards)
            connection.execute("UPDATE shard SET epoch = ? WHERE shard = ?", (commit.epoch, commit.id.shard))
            self._move_current(connection, staged, commit.parent)

    # Versions.

    def version(self, id: VersionId) -> VersionSummary:
        """The summary of one version. Raises VersionError if it does not exist or was dropped."""
        rows = self._database.read(f"SELECT * FROM version {BY_ID}", version_key(id))
        if not rows or int(rows[0]["shards"]) != id.shards:
            raise _unknown(id)
        return summary_of(rows[0])

    def versions(self, shard: int) -> list[VersionSummary]:
        """All retained versions of a shard, undone ones included, by generation and sequence."""
        rows = self._database.read("SELECT * FROM version WHERE shard = ? ORDER BY generation, sequence", (shard,))
        return [summary_of(row) for row in rows]

    def lineage(self, shard: int) -> list[VersionSummary]:
        """The versions CURRENT descends from, CURRENT last: the possible targets of a rollback."""
        last_sequences = self._last_sequences(shard)
        return [v for v in self.versions(shard) if v.id.sequence <= last_sequences.get(v.id.generation, -1)]

    def retains_all(self, after: int, upto: VersionId) -> bool:
        """Whether each version of the generation of `upto` after the sequence `after`, up to `upto`, is retained.

        Counts in the primary key: no row is read.
        """
        rows = self._database.read(
            "SELECT count(*) AS n FROM version WHERE shard = ? AND generation = ? AND sequence > ? AND sequence <= ?",
            (upto.shard, upto.generation, after, upto.sequence),
        )
        return bool(rows[0]["n"] == upto.sequence - after)

    def change_files(self, shard: int) -> ChangeFiles:
        """The files that the shard's versions are restored from."""
        rows = self._database.read("SELECT * FROM change_file WHERE shard = ?", (shard,))
        return ChangeFiles(map(change_file_of, rows))

    def chain(self, id: VersionId) -> list[ChangeFile]:
        """The files that restoring `id` reads, oldest first. Raises VersionError, DamagedError."""
        files = self.change_files(id.shard)
        self.version(id)  # it was not dropped before the files were read
        return files.chain(id)

    def merged(self, file: ChangeFile) -> None:
        """Record a merged file."""
        with self._database.transaction() as connection:
            insert_change_file(connection, file)

    def between(self, after: VersionId, upto: VersionId) -> list[VersionSummary]:
        """The versions after `after` up to and including `upto`. Raises VersionError if `upto` does not descend."""
        if after == upto:
            return []
        follow = "NOT (c.parent_generation = ? AND c.parent_sequence = ?)"
        parameters = (*version_key(upto), after.generation, after.sequence)
        versions = [summary_of(row) for row in self._database.read(_ANCESTORS.format(follow=follow), parameters)]
        if not versions or versions[0].parent != after:
            raise VersionError(f"version {upto} does not descend from {after}. run: springtide versions")
        return versions

    def pin(self, id: VersionId, pinned: bool = True) -> None:
        """Exempt a version from retention, or end that. Raises VersionError if it does not exist."""
        with self._database.transaction() as connection:
            updated = connection.execute(f"UPDATE version SET pinned = ? {BY_ID}", (pinned, *version_key(id)))
            if updated.rowcount == 0:
                raise _unknown(id)

    def protected(self, shard: int) -> set[VersionId]:
        """Versions retention must not change: CURRENT, pinned, published, or part of an unfinished rollback."""
        versions = self.versions(shard)
        by_number = {(v.id.generation, v.id.sequence): v.id for v in versions}
        pointers = [self.published.latest(level, shard) for level in ("full", "incremental")]
        # After a rollback an earlier pointer is the latest again; its version may have been dropped.
        protected = {pointer.id for pointer in pointers if pointer} & set(by_number.values())
        protected |= {v.id for v in versions if v.pinned}
        protected |= {by_number[last] for last in self._last_sequences(shard).items() if last in by_number}
        for record in self.unfinished_rollbacks():
            if shard in record.targets:
                protected |= {record.targets[shard], record.currents[shard]}
        return protected

    def unneeded_files(self, shard: int) -> list[str]:
        """The paths of the files of changes from which none of the shard's versions is restored. Raises DamagedError.

        Delete them inside the same transaction: a version that is committed meanwhile may need one.
        """
        ids = [version.id for version in self.versions(shard)]  # first: the files of these versions exist
        return [file.path for file in self.change_files(shard).unneeded(ids)]

    def drop(self, shard: int, versions: Sequence[VersionId], touched: Mapping[VersionId, tuple[str, str]]) -> None:
        """Store what retention did, atomically: children of dropped versions get the nearest retained ancestor.

        Args:
            shard: the shard; its files of changes that no version needs any more are dropped, too.
            versions: versions to delete.
            touched: file of the keys touched between a retained version's new parent and itself: its path, its digest.
        """
        with self._database.transaction() as connection:
            for id, file in touched.items():
                connection.execute(
                    f"UPDATE version SET touched_path = ?, touched_digest = ? {BY_ID}", (*file, *version_key(id))
                )
            for id in versions:
                delete_version(connection, id)
            delete_change_files(connection, self.unneeded_files(shard))

    # Rollbacks.

    def begin_rollback(
        self, targets: Mapping[int, VersionId], quarantine: Quarantine, document: Mapping[str, object]
    ) -> RollbackRecord:
        """Store the plan, raise the generation, fence every trainer and add the quarantine, atomically.

        Raises RollbackError if another rollback is unfinished, or CURRENT no longer descends from a target.
        """
        with self._database.transaction() as connection:
            self._require_no_planned_rollback()
            currents = {shard: self._current_above(target) for shard, target in targets.items()}
            generation, epochs, now_ms = self.generation() + 1, {}, self._clock.now_ms()
            for shard, target in targets.items():
                epochs[shard] = _raise_epoch(connection, shard, target.shards)
                connection.execute(
                    "INSERT INTO generation VALUES (?, ?, ?, ?, ?)",
                    (generation, shard, target.generation, target.sequence, now_ms),
                )
            quarantine_id = self.quarantines.insert(connection, quarantine)
            record = RollbackRecord(
                0, generation, "planned", dict(targets), currents, epochs, quarantine_id, dict(document), {}, now_ms
            )
            return insert_rollback(connection, record)

    def switch_rollback(
        self, record: RollbackRecord, staged: Sequence[StagedVersion], audit: Mapping[str, object]
    ) -> None:
        """Move every shard's CURRENT to its new generation, atomically. A second call changes nothing."""
        with self._database.transaction() as connection:
            state = connection.execute("SELECT state FROM rollback WHERE id = ?", (record.id,)).fetchone()
            if state["state"] != "planned":
                return
            for version in staged:
                self._move_current(connection, version, record.currents[version.commit.id.shard])
            update_rollback(connection, record.id, "switched", audit)

    def finish_rollback(self, record: RollbackRecord, audit: Mapping[str, object]) -> None:
        """Record that the rollback was announced: nothing of it is left to do."""
        with self._database.transaction() as connection:
            update_rollback(connection, record.id, "done", audit)

    def rollbacks(self) -> list[RollbackRecord]:
        """Every rollback, by id: the audit."""
        return [rollback_of(row) for row in self._database.read("SELECT * FROM rollback ORDER BY id")]

    def unfinished_rollbacks(self) -> list[RollbackRecord]:
        """Rollbacks that are not done."""
        return [record for record in self.rollbacks() if record.state != "done"]

    def _require_no_planned_rollback(self) -> None:
        planned = self._database.read("SELECT id FROM rollback WHERE state = 'planned'")
        if planned:
            raise RollbackError(f"rollback {planned[0]['id']} is unfinished. run: springtide rollback --finish")

    def _move_current(self, connection: sqlite3.Connection, staged: StagedVersion, expected: VersionId | None) -> None:
        """Compare and swap; see `commit`."""
        commit, shard = staged.commit, staged.commit.id.shard
        epoch, current = self.epoch(shard), self.current(shard)
        if epoch != commit.epoch:
            raise fenced_by_epoch(commit.id, commit.epoch, epoch)
        if current != expected:
            raise FencedError(f"version {commit.id} follows {expected}, CURRENT is {current}. hint: stop this trainer")
        last_at_ms = commit.last_at_ms
        if commit.parent is not None:
            last_at_ms = max(last_at_ms, self.version(commit.parent).last_at_ms)
        insert_version(connection, staged, last_at_ms, self._clock.now_ms())
        connection.execute(
            "UPDATE shard SET generation = ?, sequence = ? WHERE shard = ?",
            (commit.id.generation, commit.id.sequence, shard),
        )

    def _current_above(self, target: VersionId) -> VersionId:
        current = self.current(target.shard)
        if current is None or target.sequence > self._last_sequences(target.shard).get(target.generation, -1):
            raise RollbackError(
                f"CURRENT {current} does not descend from version {target}. hint: plan the rollback again"
            )
        return current

    def _last_sequences(self, shard: int) -> dict[int, int]:
        """By generation, latest first, the last sequence that CURRENT descends from; empty before the first version."""
        current = self.current(shard)
        if current is None:
            return {}
        rows = self._database.read("SELECT * FROM generation WHERE shard = ?", (shard,))
        targets = {row["generation"]: (row["target_generation"], row["target_sequence"]) for row in rows}
        generation, sequence = current.generation, current.sequence
        last_sequences = {generation: sequence}
        while generation in targets:
            generation, sequence = targets[generation]
            last_sequences[generation] = sequence
        return last_sequences


def fenced_by_epoch(id: VersionId, epoch: int, latest: int) -> FencedError:
    """The error for a version whose writer's epoch is not the latest."""
    return FencedError(
        f"version {id} comes from epoch {epoch}, shard {id.shard} is at epoch {latest}. "
        "hint: another trainer writes the shard; stop this one"
    )


def _refuse_lost(path: Path) -> None:
    """Raise DamagedError if version files lie beside a ledger that does not exist or holds nothing."""
    files = sorted(path.parent.glob("g*/s*-of-*/*.version"))
    if files:
        raise DamagedError(
            f"ledger {path} is {'empty' if path.exists() else 'missing'}, but {len(files)} version files lie beside "
            f"it, up to {files[-1].relative_to(path.parent)}. hint: {LEDGER_FIX}"
        )


def _unknown(id: VersionId) -> VersionError:
    return VersionError(f"version {id} does not exist. run: springtide versions")


def _raise_epoch(connection: sqlite3.Connection, shard: int, shards: int) -> int:
    row = connection.execute("SELECT shards FROM shard WHERE shard = ?", (shard,)).fetchone()
    if row and int(row["shards"]) != shards:
        raise VersionError(
            f"shard {shard} is one of {row['shards']}, the configuration has {shards}. hint: shards never change"
        )
    return int(
        connection.execute(
            "INSERT INTO shard (shard, shards, epoch) VALUES (?, ?, 1) "
            "ON CONFLICT (shard) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
            (shard, shards),
        ).fetchone()["epoch"]
    )
