"""Commits: what a shard has learned at a batch boundary becomes a version and a delta, made beside training.

Training passes a `BoundarySnapshot` and continues; only the tables are read later, at batch boundaries. One commit runs
at a time. Order: version file, CURRENT, delta, its announcement, then the files that are due. A crash in between loses
nothing and repeats only announcements, under the same id.
"""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from pipeline.configuration.project import Project
from pipeline.formats.container import Draft
from pipeline.logs.log import Log
from pipeline.model.identity import Identity, digest_of
from pipeline.process.crash_point import reach_crash_point
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.publish.hooks import Hooks
from pipeline.publish.levels import LevelPublisher
from pipeline.publish.publisher import PreparedUpdate, Publisher, TouchedRows, VersionRange
from pipeline.trainer.commit.checkpoint import BoundarySnapshot, field_change, packed, training_digest
from pipeline.trainer.commit.gauges import Gauges
from pipeline.trainer.tables.boundary import Boundary
from pipeline.trainer.tables.dictionary import Dictionary
from pipeline.trainer.tables.snapshots import TableSnapshots
from pipeline.trainer.tables.table import Changes
from pipeline.trainer.tables.tables import Tables
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.deltas.served_view import ServedView
from pipeline.versions.state import Commit, FieldChange, TableChange, VersionId
from pipeline.versions.store import VersionStore

_SWITCH_S = 0.0005


@dataclass(frozen=True)
class Writer:
    """What every version of one take-over of a shard carries.

    Attributes:
        serving_digest: of what serving needs to know the model by.
        log_id: of the samples topic.
    """

    shard: int
    epoch: int
    generation: int
    log_id: str
    identity: Identity
    serving_digest: str


@dataclass
class Lineage:
    """Where the shard's versions stand.

    Attributes:
        current: the version committed last; None before the first.
        commits_since_full: None where the next one has to be whole.
        migrating: the next version is the first under a changed model: serving needs it whole.
    """

    current: VersionId | None
    commits_since_full: int | None
    migrating: bool


class Committer:
    """Makes the versions of one shard. The training thread calls it; the work is done in a thread of its own."""

    def __init__(
        self, project: Project, log: Log, versions: VersionStore, writer: Writer, lineage: Lineage, tables: Tables
    ) -> None:
        self.lineage = lineage
        self._project, self._versions, self._writer = project, versions, writer
        self._delta_writer = DeltaWriter(project, log, writer.shard)
        self._hooks = Hooks(project, log)
        self._levels = LevelPublisher(project, versions, self._hooks, writer.shard)
        self.dictionary = Dictionary(project, writer.shard)
        self.gauges = Gauges(project, writer.shard, tables)
        self._boundary = Boundary()
        self._tables = TableSnapshots({name: field.table for name, field in tables.fields.items()}, self._boundary)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        # Training and commit take turns in the interpreter: at its usual 5 ms a delta would wait several times.
        sys.setswitchinterval(_SWITCH_S)
        self._under_way: Future[None] | None = None
        self.stall_s = self.longest_stall_s = 0.0
        """How long training has stood still for the newest commit, in all and at most at a stretch."""
        self.commit_s = 0.0
        """How long the newest finished commit took, from its boundary until it was published."""

    def open(self, views: Mapping[str, ServedView], next_handles: Mapping[str, int], dense: bytes) -> None:
        """Continue from what serving holds at CURRENT; says what was committed but not published.

        Whether CURRENT was announced nobody knows: it is announced again.
        """
        if self.lineage.current is not None:
            encoded = self._versions.delta(self.lineage.current)
            self._delta_writer.append_missing([encoded])
            delta = decode_delta(encoded)
            if delta.level == "realtime":  # a rollback is announced as such
                self._levels.announce_realtime(delta, encoded)
        self._publisher = Publisher(self._project.config.publish, self._tables.fields, views, next_handles, dense)

    @property
    def busy(self) -> bool:
        """Whether a commit is under way."""
        return self._under_way is not None

    def begin(self, snapshot: BoundarySnapshot) -> VersionId:
        """Begin to make `snapshot` a version; returns its id. Waits for the commit before it. Raises as `settle`."""
        self.settle()
        self.stall_s = self.longest_stall_s = 0.0
        with self._stalled():
            self._tables.begin()
            self.gauges.at_boundary()
            id = self._versions.next_id(self._writer.shard)
            self._under_way = self._worker.submit(self._make, id, snapshot)
        return id

    def serve(self) -> None:
        """Between two batches: answer what the commit under way asks. Raises as `settle` where it has failed."""
        if self._under_way is None:
            return
        with self._stalled():
            self._boundary.serve()
        if self._under_way.done():
            self.settle()

    def settle(self) -> None:
        """Wait until nothing is under way any more.

        Raises:
            FencedError: somebody else took the shard over, or it was rolled back.
            VersionError: the version could not be written.
        """
        work, self._under_way = self._under_way, None
        if work is not None:
            with self._stalled():
                self._boundary.serve_until(work)
            work.result()

    def close(self) -> None:
        """Let hooks finish. What is under way ends first."""
        try:
            self.settle()
        finally:
            self._worker.shutdown()
            self._hooks.close()
            self.dictionary.close()
            self.gauges.close()

    def _make(self, id: VersionId, snapshot: BoundarySnapshot) -> None:
        """The whole commit, in the worker's thread."""
        began_at_s = self._project.clock.monotonic_s()
        with ExitStack() as drafts:
            with self._boundary.beside_training():
                changes, whole = self._tables.changes(), self._turn_of_a_whole_one()
                draft = None if whole else drafts.enter_context(self._drafting(id, changes))
                prepared = self._prepare(id, snapshot, changes)
                commit = self._commit_of(id, snapshot, changes, prepared, whole)
                self._tables.end(changes)
            self._versions.commit(commit, draft)
        reach_crash_point("trainer.after_commit")
        self._delta_writer.append(prepared.delta, prepared.encoded)
        reach_crash_point("trainer.after_delta")
        self._levels.announce_realtime(prepared.delta, prepared.encoded)
        reach_crash_point("trainer.after_publish")
        self.commit_s = self._project.clock.monotonic_s() - began_at_s
        self.gauges.committed(id, snapshot, changes, self.commit_s)
        self.lineage.current = id
        self.dictionary.write()
        self._publish_files(snapshot.progress.last_at_ms)
        self._versions.retain(self._writer.shard, snapshot.progress.last_at_ms)

    def _drafting(self, id: VersionId, changes: Mapping[str, Changes]) -> AbstractContextManager[Draft | None]:
        """The version's file while everything but its rows is still worked out."""
        tables = {name: TableChange(c.touched, packed(c.rows), c.removed) for name, c in changes.items()}
        return self._versions.drafting(id, self._writer.epoch, tables)

    def _prepare(self, id: VersionId, snapshot: BoundarySnapshot, changes: Mapping[str, Changes]) -> PreparedUpdate:
        """The delta of this commit; the publisher's view holds it afterwards."""
        before, progress = self.lineage.current, snapshot.progress
        step = VersionRange(
            self._writer.generation, id.shard, id.shards, before.sequence if before else 0, id.sequence,
            min(progress.first_at_ms, progress.last_at_ms), progress.last_at_ms,
            {"name": self._project.config.name, "digest": self._writer.serving_digest},
        )  # fmt: skip
        touched = {name: TouchedRows(c.touched, c.rows, c.removed) for name, c in changes.items()}
        return self._publisher.prepare(step, touched, snapshot.serving_dense, flush=snapshot.flush)

    def _commit_of(
        self,
        id: VersionId,
        snapshot: BoundarySnapshot,
        changes: Mapping[str, Changes],
        prepared: PreparedUpdate,
        whole: bool,
    ) -> Commit:
        fields = {
            name: field_change(change, prepared.fields[name], prepared.delta.fields[name].dim)
            for name, change in changes.items()
        }
        if whole:
            fields = {name: self._whole(name, change) for name, change in fields.items()}
        progress = snapshot.progress
        return Commit(
            id=id,
            parent=self.lineage.current,
            epoch=self._writer.epoch,
            offset=progress.position.offset,
            row=progress.position.row,
            log_id=self._writer.log_id,
            first_at_ms=prepared.delta.first_at_ms,
            last_at_ms=prepared.delta.last_at_ms,
            fields=fields,
            dense=snapshot.dense,
            filters=snapshot.filters,
            validation=snapshot.validation,
            quarantines_seen=snapshot.quarantines_seen,
            next_handles=prepared.next_handles,
            model_digest=digest_of(self._writer.identity),
            digest=training_digest(snapshot, {name: change.digest for name, change in changes.items()}),
            served_digest=prepared.served_digest,
            delta=prepared.encoded,
            full=whole,
            samples_seen=progress.samples_seen,
        )

    def _turn_of_a_whole_one(self) -> bool:
        """Whether this version is written whole; counts it."""
        since, every = self.lineage.commits_since_full, self._project.config.train.full_every_commits
        whole = since is None or since + 1 >= every
        self.lineage.commits_since_full = 0 if whole or since is None else since + 1
        return whole

    def _whole(self, name: str, change: FieldChange) -> FieldChange:
        """The same version of a field, told as all that is there instead of what changed."""
        rows, view = self._tables.fields[name], self._publisher.views[name]
        keys, served_keys = rows.keys(), view.keys()
        handles, bits, payload = view.export(served_keys)
        return replace(
            change,
            keys=keys,
            rows=packed(rows.rows(keys)),
            removed=np.empty(0, np.uint64),
            served_keys=served_keys,
            served_handles=handles,
            served_bits=bits,
            served_payload=payload,
            served_touched=change.served_keys,
        )

    def _publish_files(self, log_ms: int) -> None:
        """Incrementals and fulls that are due; after a migration a full, the only way on for a replica."""
        if self.lineage.migrating:
            self._levels.publish_full(self._publisher.views)
            self.lineage.migrating = False
        else:
            self._levels.publish_due(log_ms, self._publisher.views)

    @contextmanager
    def _stalled(self) -> Iterator[None]:
        """Count the time training spends here."""
        began_at_s = self._project.clock.monotonic_s()
        try:
            yield
        finally:
            stop_s = self._project.clock.monotonic_s() - began_at_s
            self.stall_s += stop_s
            self.gauges.stalled_s += stop_s
            self.longest_stall_s = max(self.longest_stall_s, stop_s)
