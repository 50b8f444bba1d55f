"""The ledger: which versions there are, which one is CURRENT, who may move it, and what else must survive any rollback.

One SQLite file for all shards of a project. CURRENT moves in one transaction that compares epoch and CURRENT and swaps,
so a writer that was taken over, or paused in between, cannot move it. Asking never takes the write lock. Also here,
since they belong to no single version: generations, quarantines, halted marks, rollbacks, what was published, pins.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import FencedError, RollbackError, VersionError
from pipeline.process.clock import Clock
from pipeline.versions.ledger import records as spell
from pipeline.versions.ledger.database import Database
from pipeline.versions.ledger.quarantine import Quarantine, Quarantines
from pipeline.versions.ledger.records import SCHEMA, SCHEMA_VERSION, Halt, PublishedMark, RollbackRecord, StagedVersion
from pipeline.versions.state import VersionId, VersionSummary

_BY_ID = "WHERE shard = ? AND generation = ? AND sequence = ?"
_CHAIN = """
WITH RECURSIVE chain AS (
    SELECT * FROM version WHERE shard = ? AND generation = ? AND sequence = ?
    UNION ALL
    SELECT v.* FROM version v JOIN chain c
        ON v.shard = c.shard AND v.generation = c.parent_generation AND v.sequence = c.parent_sequence
    WHERE {follow}
) SELECT * FROM chain ORDER BY sequence
"""


@dataclass(frozen=True)
class Compaction:
    """What retention changes in one step: versions forgotten, files replaced, files of touched keys.

    Attributes:
        shard: whose versions.
        dropped: versions to forget.
        rewritten: new file of a kept version: path and whether it is full now and its size.
        touched: path of the keys touched between a kept version's new parent and itself.
    """

    shard: int
    dropped: Sequence[VersionId]
    rewritten: Mapping[VersionId, tuple[str, bool, int]]
    touched: Mapping[VersionId, str]


class Ledger:
    """Thread-safe, and safe beside other processes on the same file. Close it before forking."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._db = Database(path, SCHEMA, SCHEMA_VERSION)
        self._clock = clock

    def close(self) -> None:
        self._db.close()

    # Who may write, and where the shard stands.

    def take_over(self, shard: int, shards: int) -> int:
        """Become the shard's only writer: every earlier epoch is dead from now on. Returns the new epoch.

        Raises RollbackError while a rollback is half done: nobody may go on from a state that is being undone.
        """
        with self._db.transaction() as connection:
            half_done = connection.execute("SELECT id FROM rollback WHERE state = 'planned'").fetchone()
            if half_done:
                raise RollbackError(f"rollback {half_done['id']} is half done. run: springtide rollback --finish")
            return self._raise_epoch(connection, shard, shards)

    def epoch(self, shard: int) -> int:
        """The newest epoch; 0 where nobody has ever written."""
        found = self._db.read("SELECT epoch FROM shard WHERE shard = ?", (shard,))
        return int(found[0]["epoch"]) if found else 0

    def current(self, shard: int) -> VersionId | None:
        """The version training goes on from; None before the first."""
        found = self._db.read("SELECT * FROM shard WHERE shard = ?", (shard,))
        return spell.current_of(found[0]) if found else None

    def shards(self) -> list[int]:
        """Shards that have a CURRENT, ascending."""
        return [
            int(row["shard"])
            for row in self._db.read("SELECT shard FROM shard WHERE sequence IS NOT NULL ORDER BY shard")
        ]

    def generation(self) -> int:
        """The branch new versions are made on: 0, and one more per rollback."""
        return _generation(self._db.read("SELECT max(generation) AS newest FROM generation"))

    def commit(self, staged: StagedVersion) -> None:
        """Record a version and move CURRENT to it, at once or not at all.

        Raises FencedError where the epoch is not the newest or CURRENT is not the version's parent.
        """
        with self._db.transaction() as connection:
            newest = _generation(connection.execute("SELECT max(generation) AS newest FROM generation").fetchall())
            if staged.commit.id.generation != newest:
                raise FencedError(
                    f"version {staged.commit.id} is of an old generation, the newest is {newest}. "
                    "hint: the model was rolled back; start this trainer again"
                )
            self._move_current(connection, staged, staged.commit.parent)

    # Versions.

    def version(self, id: VersionId) -> VersionSummary:
        """What is known of one version. Raises VersionError where it is unknown or was dropped."""
        found = self._db.read(f"SELECT * FROM version {_BY_ID}", _place(id))
        if not found or int(found[0]["shards"]) != id.shards:
            raise VersionError(f"version {id} is not there. run: springtide versions")
        return spell.summary_of(found[0])

    def versions(self, shard: int) -> list[VersionSummary]:
        """All versions kept of a shard, undone ones too, by generation and sequence."""
        rows = self._db.read("SELECT * FROM version WHERE shard = ? ORDER BY generation, sequence", (shard,))
        return [spell.summary_of(row) for row in rows]

    def lineage(self, shard: int) -> list[VersionSummary]:
        """The versions CURRENT grew from, oldest first, CURRENT last: what a rollback can go back to."""
        current = self.current(shard)
        if current is None:
            return []
        parents = {generation: sequence for generation, sequence in self._branches(current)}
        return [v for v in self.versions(shard) if v.id.sequence <= parents.get(v.id.generation, -1)]

    def chain(self, id: VersionId) -> list[VersionSummary]:
        """What restoring `id` needs: from the nearest full version (or the very first) to it. Raises VersionError."""
        found = self._db.read(_CHAIN.format(follow="NOT c.full"), _place(id))
        if not found:
            raise VersionError(f"version {id} is not there. run: springtide versions")
        return [spell.summary_of(row) for row in found]

    def between(self, after: VersionId, upto: VersionId) -> list[VersionSummary]:
        """The versions after `after` up to and with `upto`, oldest first. Raises VersionError if unrelated."""
        if after == upto:
            return []
        follow = "NOT (c.parent_generation = ? AND c.parent_sequence = ?)"
        where = (*_place(upto), after.generation, after.sequence)
        found = [spell.summary_of(row) for row in self._db.read(_CHAIN.format(follow=follow), where)]
        if not found or found[0].parent != after:
            raise VersionError(f"version {upto} did not grow from {after}. run: springtide versions")
        return found

    def pin(self, id: VersionId, pinned: bool = True) -> None:
        """Keep a version from retention, or release it. Raises VersionError where it is unknown."""
        with self._db.transaction() as connection:
            done = connection.execute(f"UPDATE version SET pinned = ? {_BY_ID}", (pinned, *_place(id)))
            if done.rowcount == 0:
                raise VersionError(f"version {id} is not there. run: springtide versions")

    def pinned(self, shard: int) -> set[VersionId]:
        """Versions retention must not touch: CURRENT, pinned, published for serving, or part of a rollback."""
        versions = self.versions(shard)
        names = {(v.id.generation, v.id.sequence): v.id for v in versions}
        # After a rollback an older publication counts again, whose version may be long gone.
        published = {mark.id for mark in self._newest_published(shard)} & set(names.values())
        held = {v.id for v in versions if v.pinned} | published
        current = self.current(shard)
        if current is not None:
            held.add(current)
            held |= {names[branch] for branch in self._branches(current) if branch in names}
        for record in self.pending_rollbacks():
            if shard in record.targets:
                held |= {record.targets[shard], record.currents[shard]}
        return held

    def compact(self, compaction: Compaction) -> None:
        """Carry out what retention planned, at once: children of dropped versions get the nearest kept ancestor."""
        with self._db.transaction() as connection:
            for id in {*compaction.rewritten, *compaction.touched}:
                connection.execute(f"UPDATE version SET rewrites = rewrites + 1 {_BY_ID}", _place(id))
            for id, (path, full, size) in compaction.rewritten.items():
                connection.execute(
                    f"UPDATE version SET path = ?, full = ?, size_bytes = ? {_BY_ID}", (path, full, size, *_place(id))
                )
            for id, path in compaction.touched.items():
                connection.execute(f"UPDATE version SET touched_path = ? {_BY_ID}", (path, *_place(id)))
            for id in compaction.dropped:
                _forget(connection, id)

    # What serving was given.

    def set_published(self, level: str, id: VersionId, where: str) -> None:
        """Remember that `id` was published; again for the same version changes only `where`."""
        with self._db.transaction() as connection:
            if level == "realtime":  # one per commit: only the newest is worth a row
                connection.execute("DELETE FROM published WHERE level = ? AND shard = ?", (level, id.shard))
            connection.execute(
                "INSERT OR REPLACE INTO published VALUES (?, ?, ?, ?, ?, ?, ?)",
                (level, id.shard, id.shards, id.generation, id.sequence, where, self._clock.now_ms()),
            )

    def published(self, level: str, shard: int) -> PublishedMark | None:
        """The newest one of this level that CURRENT grew from: what was undone by a rollback does not count."""
        current = self.current(shard)
        limits = dict(self._branches(current)) if current else {}
        rows = self._db.read(
            "SELECT * FROM published WHERE level = ? AND shard = ? ORDER BY generation DESC, sequence DESC",
            (level, shard),
        )
        marks = [spell.max_event_time_of(row) for row in rows]
        return next((mark for mark in marks if mark.id.sequence <= limits.get(mark.id.generation, -1)), None)

    def forget_published(self, before: VersionId) -> None:
        """The files of this shard that lead less far than `before` are gone, those of older generations too."""
        with self._db.transaction() as connection:
            connection.execute(
                "DELETE FROM published WHERE shard = ? AND (generation, sequence) < (?, ?)", _place(before)
            )

    # Bad data.

    def add_quarantine(self, quarantine: Quarantine) -> int:
        """Training must not read this range from now on; returns its id. Raises InputError for an empty range."""
        with self._db.transaction() as connection:
            return self._insert_quarantine(connection, quarantine)

    def remove_quarantine(self, id: int) -> None:
        """Let training read the range again where it still comes to it. Raises VersionError for an id not in force."""
        with self._db.transaction() as connection:
            done = connection.execute(
                "UPDATE quarantine SET removed_at_ms = ? WHERE id = ? AND removed_at_ms IS NULL",
                (self._clock.now_ms(), id),
            )
            if done.rowcount == 0:
                raise VersionError(f"quarantine {id} is not in force. run: springtide quarantine list")

    def all_quarantines(self) -> list[Quarantine]:
        """Every quarantine ever added, removed ones too, by id."""
        return [spell.quarantine_of(row) for row in self._db.read("SELECT * FROM quarantine ORDER BY id")]

    def quarantines(self, shard: int) -> Quarantines:
        """Those in force for one shard."""
        entries = [q for q in self.all_quarantines() if q.removed_at_ms is None and q.shard in (None, shard)]
        return Quarantines(tuple(entries))

    def halt(self, shard: int, reason: str, batch_file: str) -> None:
        """Stop the line durably: a restart finds the mark and waits."""
        with self._db.transaction() as connection:
            connection.execute(
                "UPDATE halted SET cleared_at_ms = ? WHERE shard = ? AND cleared_at_ms IS NULL",
                (self._clock.now_ms(), shard),
            )
            connection.execute(
                "INSERT INTO halted (shard, reason, batch_file, at_ms) VALUES (?, ?, ?, ?)",
                (shard, reason, batch_file, self._clock.now_ms()),
            )

    def halted(self, shard: int) -> Halt | None:
        """Why the shard waits; None where it does not."""
        found = self._db.read("SELECT * FROM halted WHERE shard = ? AND cleared_at_ms IS NULL", (shard,))
        return Halt(shard, found[0]["reason"], found[0]["batch_file"], found[0]["at_ms"]) if found else None

    def clear_halt(self, shard: int) -> bool:
        """Let the shard go on; false where it was not halted."""
        with self._db.transaction() as connection:
            done = connection.execute(
                "UPDATE halted SET cleared_at_ms = ? WHERE shard = ? AND cleared_at_ms IS NULL",
                (self._clock.now_ms(), shard),
            )
            return done.rowcount > 0

    # Rollbacks.

    def begin_rollback(
        self, targets: Mapping[int, VersionId], quarantine: Quarantine, document: Mapping[str, object]
    ) -> RollbackRecord:
        """At once: keep the plan, raise the generation, fence every trainer, add the quarantine.

        Raises RollbackError where another rollback is half done, or CURRENT no longer grows from a target.
        """
        with self._db.transaction() as connection:
            half_done = connection.execute("SELECT id FROM rollback WHERE state = 'planned'").fetchone()
            if half_done:
                raise RollbackError(f"rollback {half_done['id']} is half done. run: springtide rollback --finish")
            currents = {shard: self._current_above(shard, target) for shard, target in targets.items()}
            generation = (
                _generation(connection.execute("SELECT max(generation) AS newest FROM generation").fetchall()) + 1
            )
            epochs = {}
            for shard, target in targets.items():
                epochs[shard] = self._raise_epoch(connection, shard, target.shards)
                connection.execute(
                    "INSERT INTO generation VALUES (?, ?, ?, ?, ?)",
                    (generation, shard, target.generation, target.sequence, self._clock.now_ms()),
                )
            record = RollbackRecord(
                0, generation, "planned", dict(targets), currents, epochs,
                self._insert_quarantine(connection, quarantine), dict(document), {}, self._clock.now_ms(),
            )  # fmt: skip
            return spell.insert_rollback(connection, record)

    def switch_rollback(
        self, record: RollbackRecord, staged: Sequence[StagedVersion], audit: Mapping[str, object]
    ) -> None:
        """Move every shard's CURRENT to its new generation, at once. A second time changes nothing."""
        with self._db.transaction() as connection:
            state = connection.execute("SELECT state FROM rollback WHERE id = ?", (record.id,)).fetchone()
            if state["state"] != "planned":
                return
            for version in staged:
                self._move_current(connection, version, record.currents[version.commit.id.shard])
            spell.update_rollback(connection, record.id, "switched", audit)

    def finish_rollback(self, record: RollbackRecord, audit: Mapping[str, object]) -> None:
        """Everybody was told: nothing of it is left to do."""
        with self._db.transaction() as connection:
            spell.update_rollback(connection, record.id, "done", audit)

    def rollbacks(self) -> list[RollbackRecord]:
        """Every rollback, oldest first: the audit."""
        return [spell.rollback_of(row) for row in self._db.read("SELECT * FROM rollback ORDER BY id")]

    def pending_rollbacks(self) -> list[RollbackRecord]:
        """Those with something left to do."""
        return [record for record in self.rollbacks() if record.state != "done"]

    def _raise_epoch(self, connection: sqlite3.Connection, shard: int, shards: int) -> int:
        found = connection.execute("SELECT shards FROM shard WHERE shard = ?", (shard,)).fetchone()
        if found and int(found["shards"]) != shards:
            raise VersionError(
                f"shard {shard} is one of {found['shards']}, the configuration says {shards}. hint: shards never change"
            )
        return int(
            connection.execute(
                "INSERT INTO shard (shard, shards, epoch) VALUES (?, ?, 1) "
                "ON CONFLICT (shard) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
                (shard, shards),
            ).fetchone()["epoch"]
        )

    def _move_current(self, connection: sqlite3.Connection, staged: StagedVersion, expected: VersionId | None) -> None:
        """Compare and swap; see `commit`."""
        commit = staged.commit
        found = connection.execute("SELECT * FROM shard WHERE shard = ?", (commit.id.shard,)).fetchone()
        newest = int(found["epoch"]) if found else 0
        if newest != commit.epoch:
            raise FencedError(
                f"version {commit.id} comes from epoch {commit.epoch}, shard {commit.id.shard} is at epoch {newest}. "
                "hint: somebody took the shard over; stop this trainer"
            )
        current = spell.current_of(found)
        if current != expected:
            raise FencedError(f"version {commit.id} follows {expected}, CURRENT is {current}. hint: stop this trainer")
        last_at_ms = commit.last_at_ms
        if commit.parent is not None:
            last_at_ms = max(last_at_ms, self.version(commit.parent).last_at_ms)
        spell.insert_version(connection, staged, last_at_ms, self._clock.now_ms())
        connection.execute(
            "UPDATE shard SET generation = ?, sequence = ? WHERE shard = ?",
            (commit.id.generation, commit.id.sequence, commit.id.shard),
        )

    def _insert_quarantine(self, connection: sqlite3.Connection, quarantine: Quarantine) -> int:
        quarantine.check()
        return spell.insert_quarantine(connection, quarantine, self._clock.now_ms())

    def _current_above(self, shard: int, target: VersionId) -> VersionId:
        current = self.current(shard)
        if current is None or target.sequence > dict(self._branches(current)).get(target.generation, -1):
            raise RollbackError(
                f"version {target} is not what CURRENT {current} grew from. hint: plan the rollback again"
            )
        return current

    def _branches(self, current: VersionId) -> list[tuple[int, int]]:
        """(generation, last sequence of it that counts) from CURRENT's generation back to the first."""
        rows = self._db.read("SELECT * FROM generation WHERE shard = ?", (current.shard,))
        grew_from = {
            int(row["generation"]): (int(row["target_generation"]), int(row["target_sequence"])) for row in rows
        }
        branches = [(current.generation, current.sequence)]
        while branches[-1][0] in grew_from:
            branches.append(grew_from[branches[-1][0]])
        return branches

    def _newest_published(self, shard: int) -> list[PublishedMark]:
        marks = [self.published(level, shard) for level in ("full", "incremental")]
        return [mark for mark in marks if mark is not None]


def _place(id: VersionId) -> tuple[int, int, int]:
    return id.shard, id.generation, id.sequence


def _generation(rows: Sequence[sqlite3.Row]) -> int:
    newest = rows[0]["newest"]
    return 0 if newest is None else int(newest)


def _forget(connection: sqlite3.Connection, id: VersionId) -> None:
    """Delete one version; its children's parent becomes its own."""
    found = connection.execute(f"SELECT * FROM version {_BY_ID}", _place(id)).fetchone()
    if found is None:
        return
    connection.execute(
        "UPDATE version SET parent_generation = ?, parent_sequence = ? "
        "WHERE shard = ? AND parent_generation = ? AND parent_sequence = ?",
        (found["parent_generation"], found["parent_sequence"], *_place(id)),
    )
    connection.execute(f"DELETE FROM version {_BY_ID}", _place(id))
