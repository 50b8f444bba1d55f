"""Commits: the state at a batch boundary becomes a version and a delta while training continues.

Training passes a `BoundarySnapshot` and continues; only the tables are read later, at batch boundaries. One commit runs
at a time. Order: version file, CURRENT, delta, its announcement, then the files that are due. A crash in between loses
nothing and repeats only announcements, under the same id.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TypeVar

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.configuration.project import Project
from pipeline.errors import FencedError
from pipeline.formats.container import Draft
from pipeline.logs.interface.log import Log
from pipeline.model.dense import DenseModel
from pipeline.model.identity import digest_of
from pipeline.process.crash_point import reach_crash_point
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.publish.hooks.notices import Hooks
from pipeline.publish.levels.full_request import FullRequest
from pipeline.publish.levels.level_publisher import LevelPublisher
from pipeline.publish.publisher import PreparedUpdate, Publisher, PublishSettings, TouchedRows, VersionRange
from pipeline.trainer.commit.boundary_snapshot import BoundarySnapshot, field_change, packed, training_digest
from pipeline.trainer.commit.gauges import Gauges
from pipeline.trainer.commit.lineage import ServedState, VersionOrigin
from pipeline.trainer.commit.restore import RestoredShard
from pipeline.trainer.commit.served_loss import FirstBatch, ServedLoss, served_loss, served_outputs
from pipeline.trainer.tables.boundary import Boundary
from pipeline.trainer.tables.dictionary import Dictionary
from pipeline.trainer.tables.rows_ahead import RowsAhead
from pipeline.trainer.tables.snapshots import OpenChanges, TableSnapshot
from pipeline.trainer.tables.table import Changes
from pipeline.trainer.validation.gate.gate import GateState
from pipeline.versions.deltas.delta import decode_delta
from pipeline.versions.quality import Quality
from pipeline.versions.state import Commit, FieldChange, TableChange, VersionId
from pipeline.versions.store.version_store import VersionStore

_SWITCH_S = 0.0005

_MAINTENANCE_NICE = 10

_Result = TypeVar("_Result")


class Committer:
    """Makes the versions of one shard. The training thread calls it; the work runs in a separate thread."""

    def __init__(
        self,
        project: Project,
        log: Log,
        versions: VersionStore,
        origin: VersionOrigin,
        restored: RestoredShard,
        model: DenseModel,
    ) -> None:
        """Continue from CURRENT as `restored`; publishes a delta that was only committed.

        Whether CURRENT was announced is unknown: it is announced again. Of `model`, only the architecture is read.
        """
        self._lineage, tables, served = restored.lineage, restored.tables, restored.served
        self._cold, self._stored = tables.cold, restored.stored
        self._project, self._versions, self._origin, self._model = project, versions, origin, model
        self._delta_writer = DeltaWriter(project, log, origin.shard)
        self._served_model = {"name": project.config.name, "digest": origin.serving_digest}
        self._hooks = Hooks(project, log)
        self._levels = LevelPublisher(project, versions, self._hooks, origin.shard)
        self._full_request = FullRequest(project, origin.shard)
        self.dictionary = Dictionary(project, origin.shard)
        self.gauges = Gauges(project, origin.shard, tables)
        self._tables = {name: each.table for name, each in tables.by_name.items()}
        self._boundary = Boundary()
        self._snapshots = {
            name: TableSnapshot(each.table, self._boundary.calls, each.rounding, each.cold)
            for name, each in tables.by_name.items()
        }
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        # A commit needs the GIL several times; at the default switch interval each time costs 5 ms.
        sys.setswitchinterval(_SWITCH_S)
        self._in_progress: Future[None] | None = None
        self._maintenance = ThreadPoolExecutor(1, thread_name_prefix="maintenance", initializer=_lower_priority)
        self._maintained: Future[object] | None = None
        self.stall_s = self.longest_stall_s = 0.0
        """How long training was stalled for the last commit, in total and in its longest single stall."""
        self.commit_s = 0.0
        """How long the last finished commit took, from its boundary until it was published."""
        self._publish_current()
        opening = self._worker.submit(self._open_publisher, served, restored)
        if restored.stored is None or self._lineage.current is None:
            self._boundary.serve_until(opening)
            opening.result()
        else:  # beside training: the first commit waits for it
            self._in_progress = opening

    def _open_publisher(self, served: ServedState, restored: RestoredShard) -> None:
        """Read what serving holds, and every row once; rows that fit the budget are brought to memory on the way."""
        stored = None
        if self._cold is not None:
            share, half_life_s = self._cold.share(), self._project.config.train.half_life_s
            ahead = RowsAhead(self._cold, self._boundary.calls, share, half_life_s)
            stored = {name: ahead.passing(name, cold) for name, cold in restored.tables.restored_cold.items()}
        self._publisher = Publisher(
            PublishSettings.of(self._project.config), self._snapshots, served.views(), served.next_handles,
            served.dense, served.price, stored,
        )  # fmt: skip

    @property
    def busy(self) -> bool:
        """Whether a commit is in progress, or the shard is still being read."""
        return self._in_progress is not None

    def begin(self, snapshot: BoundarySnapshot) -> VersionId:
        """Begin to commit `snapshot`; returns the version's id. Waits for the commit before. Raises as `drain`."""
        self.drain()
        self.stall_s = self.longest_stall_s = 0.0
        with self._stalling():
            self._swap_out()
            changes = OpenChanges(self._tables, self._boundary.calls)
            id = self._versions.next_id(self._origin.shard)
            self._in_progress = self._worker.submit(self._commit, id, snapshot, changes)
        return id

    def serve(self) -> None:
        """Between two batches: run the calls of the commit in progress, or swap rows out.

        Raises as `drain` if the commit has failed.
        """
        if self._in_progress is None:
            self._swap_out()
            return
        with self._stalling():
            self._boundary.serve()
        if self._in_progress.done():
            self.drain()

    def drain(self) -> None:
        """Wait until no commit is in progress.

        Raises:
            FencedError: another trainer took the shard over, or it was rolled back.
            VersionError: the version could not be written.
        """
        work, self._in_progress = self._in_progress, None
        if work is not None:
            with self._stalling():
                self._boundary.serve_until(work)
            work.result()

    def _swap_out(self) -> None:
        """While no commit is in progress: rows that did not change since the last one are in the files of CURRENT."""
        if self._cold is not None and not self._lineage.replacing:
            self._cold.swap_out()

    def close(self) -> None:
        """Finish the commit in progress, maintenance and the hooks. Raises what they raised."""
        try:
            self.drain()
        finally:
            self._worker.shutdown()
            self._maintenance.shutdown()
            if self._cold is not None and self._stored is not None:
                self._cold.close()
                self._stored.close()
            self._hooks.close()
            self.dictionary.close()
            self.gauges.close()
        if self._maintained is not None:
            self._maintained.result()

    def _publish_current(self) -> None:
        """Publish CURRENT's delta if it is not in the topic, and announce it again. Raises DamagedError."""
        self._delta_writer.refuse_later(self._lineage.current, self._served_model)
        if self._lineage.current is None:
            return
        encoded = self._versions.delta(self._lineage.current)
        self._delta_writer.append_missing([encoded])
        delta = decode_delta(encoded)
        if delta.level == "realtime":  # a rollback has an announcement of another kind
            self._levels.announce_realtime(delta, encoded)

    def _run(self, work: Callable[[], _Result]) -> _Result:
        """The result of `work`, run in the worker's thread, which may read the tables."""
        running = self._worker.submit(work)
        self._boundary.serve_until(running)
        return running.result()

    def _commit(self, id: VersionId, snapshot: BoundarySnapshot, open_changes: OpenChanges) -> None:
        """The complete commit, in the worker's thread."""
        began_at_s = self._project.clock.monotonic_s()
        with ExitStack() as drafts:
            changes = open_changes.collect()
            draft = None if self._lineage.replacing else drafts.enter_context(self._drafting(id, changes))
            flush = snapshot.flush or self._full_snapshot_follows(snapshot.progress.last_at_ms)
            hold = self._holds(snapshot)
            measured = None if hold else self._correct_price(snapshot)
            prepared = self._prepare(id, snapshot, changes, flush and not hold, hold)
            quality = self._quality_of(snapshot, prepared, measured, hold)
            commit = replace(self._commit_of(id, snapshot, changes, prepared), quality=quality)
            open_changes.settle(changes)
            self._versions.commit(commit, draft)
        if self._stored is not None:
            self._stored.renew(id)
        reach_crash_point("trainer.after_commit")
        self._delta_writer.append(prepared.delta, prepared.encoded)
        reach_crash_point("trainer.after_delta")
        self.gauges.published.count(self._levels.announce_realtime(prepared.delta, prepared.encoded))
        reach_crash_point("trainer.after_publish")
        self.commit_s = self._project.clock.monotonic_s() - began_at_s
        self.gauges.serving_loss["predicted"] = prepared.price.predicted
        self.gauges.committed(id, snapshot, changes, self.commit_s)
        self._lineage.advance(id)
        self.dictionary.write()
        if not (hold and self.holds_file(snapshot.gate, snapshot.progress.last_at_ms)):
            self._publish_files(snapshot.progress.last_at_ms, prepared.complete)
        self._maintain(snapshot.progress.last_at_ms)

    def _maintain(self, log_ms: int) -> None:
        """Merge files and drop versions in a thread of its own, unless it is still busy. Raises what it raised."""
        if self._maintained is not None:
            if not self._maintained.done():
                return
            self._maintained.result()
        self._maintained = self._maintenance.submit(self._retain, log_ms)

    def _retain(self, log_ms: int) -> None:
        with suppress(FencedError):  # who took the shard over maintains its files; a commit will say so
            self._versions.retain(self._origin.shard, log_ms)
        if self._stored is not None:
            self._stored.renew()

    def _correct_price(self, snapshot: BoundarySnapshot) -> ServedLoss | None:
        """Compare serving, which holds the commit before, with the trainer."""
        if snapshot.first is None:
            return None
        served, views = self._publisher.served_dense, self._publisher.views
        measured = served_loss(
            snapshot.first, self._project.config, self._model.layout.starts,
            lambda table, keys: views[table].decode(keys), lambda inputs: self._model.outputs_by(served, inputs),
        )  # fmt: skip
        if measured.relative is not None:
            self._publisher.correct(measured.relative, measured.dense)
            self.gauges.serving_loss["measured"] = measured.relative
        return measured

    def _quality_of(
        self, snapshot: BoundarySnapshot, prepared: PreparedUpdate, measured: ServedLoss | None, hold: bool
    ) -> Quality:
        return Quality(
            predicted_loss=prepared.price.predicted,
            measured_loss=measured.relative if measured else None,
            calibration=measured.calibration if measured else {},
            withheld=dict(prepared.withheld),
            gate=snapshot.gate if self._project.config.gate else None,
            held=hold,
            file_check=snapshot.check.outcome if snapshot.check else None,
            file_check_loss=snapshot.check.loss if snapshot.check else None,
        )

    def _holds(self, snapshot: BoundarySnapshot) -> bool:
        """Whether the gate keeps from serving what this commit learned.

        Never the first version, the first after a migration, or a full on command: serving would have no model, or none
        that fits. A version that follows a passed check goes on too. The delta is appended in any case, without rows,
        so that the chain has no gap.
        """
        if snapshot.gate == "healthy" or self._lineage.current is None or snapshot.flush or self._full_needed:
            return False
        return snapshot.check is None or not snapshot.check.passed

    def holds_file(self, gate: GateState, log_ms: int) -> bool:
        """Whether a file is due at CURRENT, of log time `log_ms`, that the gate holds until it passes its check."""
        settings = self._project.config.gate
        if settings is None or gate == "healthy" or self._lineage.current is None or self._full_needed:
            return False
        if gate == "corrupted" and settings.on_corrupted is not None:
            return False
        return self.file_due(log_ms)

    def file_due(self, log_ms: int) -> bool:
        """Whether a file is due by the log's time."""
        schedule = self._levels.schedule
        return schedule.full_due_by_time(log_ms) or schedule.incremental_due_by_time(log_ms)

    def outputs_with_file(self, first: FirstBatch, snapshot: BoundarySnapshot) -> Float32s:
        """[n, labels] what serving would compute of the first batch after CURRENT with the file that is due.

        `snapshot`: the shard at CURRENT. No commit is in progress.
        """
        config, log_ms = self._project.config, snapshot.progress.last_at_ms
        at_s, loss, flush = log_ms // 1000, self._loss_of(snapshot), self._full_snapshot_follows(log_ms)
        preview = self._run(
            lambda: self._publisher.preview(at_s, snapshot.published_dense, loss=loss, flush=flush)
        )  # fmt: skip
        return served_outputs(
            first, config, self._model.layout.starts, preview.lookup,
            lambda inputs: self._model.outputs_by(preview.dense, inputs),
        )  # fmt: skip

    @property
    def _full_needed(self) -> bool:
        """Whether an operator or a migration needs a full."""
        return self._lineage.migrating or self._full_request.pending()

    def _drafting(self, id: VersionId, changes: Mapping[str, Changes]) -> AbstractContextManager[Draft | None]:
        """The version's file, begun with its rows while the rest is still computed."""
        tables = {name: TableChange(c.touched, packed(c.rows), c.removed) for name, c in changes.items()}
        return self._versions.drafting(id, self._origin.epoch, tables)

    def _full_snapshot_follows(self, log_ms: int) -> bool:
        """Whether a full snapshot of every row follows this commit: then its delta sends them all."""
        every = self._project.config.publish.full_rows == "every"
        return self._full_needed or (every and self._levels.schedule.full_due(log_ms))

    def _prepare(
        self, id: VersionId, snapshot: BoundarySnapshot, changes: Mapping[str, Changes], flush: bool, hold: bool
    ) -> PreparedUpdate:
        """The delta of this commit; the publisher's view holds it afterwards."""
        before, progress = self._lineage.current, snapshot.progress
        versions = VersionRange(
            self._origin.generation, id.shard, id.shards, before.sequence if before else 0, id.sequence,
            min(progress.first_at_ms, progress.last_at_ms), progress.last_at_ms,
            self._served_model,
        )  # fmt: skip
        touched = {name: TouchedRows(c.touched, c.rows, c.removed) for name, c in changes.items()}
        loss, dense = self._loss_of(snapshot), snapshot.published_dense
        return self._publisher.prepare(versions, touched, dense, loss=loss, flush=flush, hold=hold)

    def _loss_of(self, snapshot: BoundarySnapshot) -> float:
        """The trainer's, summed over samples and decayed."""
        progress = snapshot.progress
        return progress.loss.at(progress.last_at_ms // 1000, self._project.config.train.half_life_s)

    def _commit_of(
        self,
        id: VersionId,
        snapshot: BoundarySnapshot,
        changes: Mapping[str, Changes],
        prepared: PreparedUpdate,
    ) -> Commit:
        fields = {
            name: field_change(change, prepared.fields[name], prepared.delta.fields[name].dim)
            for name, change in changes.items()
        }
        if self._lineage.replacing:
            fields = {name: self._with_all_rows(name, change) for name, change in fields.items()}
        progress = snapshot.progress
        return Commit(
            id=id,
            parent=self._lineage.current,
            epoch=self._origin.epoch,
            offset=progress.position.offset,
            row=progress.position.row,
            log_id=self._origin.log_id,
            first_at_ms=prepared.delta.first_at_ms,
            last_at_ms=prepared.delta.last_at_ms,
            fields=fields,
            dense=snapshot.dense,
            training_state=snapshot.training_state,
            validation=snapshot.validation,
            quarantines_seen=snapshot.quarantines_seen,
            next_handles=prepared.next_handles,
            model_digest=digest_of(self._origin.identity),
            digest=training_digest(snapshot, {name: change.digest for name, change in changes.items()}),
            served_digest=prepared.served_digest,
            delta=prepared.encoded,
            served_dense=prepared.served_dense,
            price=prepared.price.numbers(),
            full=self._lineage.replacing,
            samples_seen=progress.samples_seen,
        )

    def _with_all_rows(self, name: str, change: FieldChange) -> FieldChange:
        """The change of a table with all its rows and served entries instead of those that changed."""
        rows, view = self._snapshots[name], self._publisher.views[name]
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

    def _publish_files(self, log_ms: int, complete: bool) -> None:
        """Incrementals and full snapshots that are due; after a migration a full one, which a replica needs then.

        A full of every row waits until all are sent, `complete`, by this commit or the next ones.
        """
        if complete and self._full_needed:
            manifests = [self._levels.publish_full(self._publisher.views)]
            self._lineage.migrating = False
            self._full_request.remove()
        else:
            served = self._project.config.publish.full_rows == "served" and not self._full_needed
            manifests = [*self._levels.publish_due(log_ms, self._publisher.views, complete or served)]
        for manifest in filter(None, manifests):
            self.gauges.published.count(manifest)

    @contextmanager
    def _stalling(self) -> Iterator[None]:
        """Count the time that training spends inside."""
        began_at_s = self._project.clock.monotonic_s()
        try:
            yield
        finally:
            stall_s = self._project.clock.monotonic_s() - began_at_s
            self.stall_s += stall_s
            self.gauges.stalled_s += stall_s
            self.longest_stall_s = max(self.longest_stall_s, stall_s)


def _lower_priority() -> None:
    """Give this thread what training and commits leave of the processor."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _MAINTENANCE_NICE)
