"""One trainer shard: learns from its samples partition, commits versions and publishes what each of them changed.

CURRENT is the truth: opening a shard raises its epoch, restores CURRENT and publishes what was committed but not
published. Learning is a function of the samples log; commits are made in parallel and change nothing.

The dense step of a batch runs in a separate thread. Meanwhile the training thread serves the commit in progress, looks
up the next batch's keys and admits new ones, and scores the batch before: none of that reads or writes what the step
changes. With `train.pipeline_depth = 2` it also brings the gradient of the batch before to its rows, and then gathers
the next batch: the batches of the log and its times of expiry decide what each batch reads, never the clock.
"""

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.arrays.types import Bools, Float32s, Int64s
from pipeline.configuration.project import Project
from pipeline.errors import HaltedError, InputError, ModelError, RecordError, UserCodeError
from pipeline.features.plan import FeaturePlan
from pipeline.logs.interface.end_offsets import EndOffsets
from pipeline.logs.interface.log import Log
from pipeline.model.dense import DenseModel, StepResult
from pipeline.model.identity import identity_of, serving_digest
from pipeline.process.collector import collector_paused
from pipeline.process.freed_memory import keep_freed_memory
from pipeline.publish.levels.full_request import FullRequest
from pipeline.quarantine.sample_mask import SampleMask
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading
from pipeline.trainer.batch.batches import Batch, BatchReader, Excluded, SamplePosition
from pipeline.trainer.batch.outliers import first_not_finite, outlier
from pipeline.trainer.batch.prefetch import InvalidBatchError, Prefetcher, PreparedBatch
from pipeline.trainer.batch.shuffled import ShuffledReader
from pipeline.trainer.commit.boundary_snapshot import BoundarySnapshot, training_state_of
from pipeline.trainer.commit.committer import Committer
from pipeline.trainer.commit.file_check import ALLOWED, FileCheck
from pipeline.trainer.commit.halt import Problem, halt_at_record, halt_shard, refuse_halted
from pipeline.trainer.commit.lineage import VersionOrigin
from pipeline.trainer.commit.restore import restore_shard
from pipeline.trainer.commit.schedule import CommitSchedule
from pipeline.trainer.commit.served_loss import MOST_SAMPLES, FirstBatch, measures, relative_loss
from pipeline.trainer.run.scoring import gate_samples, score_batch
from pipeline.trainer.tables.tables import AdmittedBatch
from pipeline.trainer.validation.gate.gate import STATES, Gate
from pipeline.versions.ledger.sample_records import with_foreign_neighbours
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore


class TrainerShard:
    """The training loop of one shard. One thread at a time; another trainer on the same shard fences this one."""

    def __init__(
        self, project: Project, log: Log, versions: VersionStore, shard: int, *, migrate: bool = False
    ) -> None:
        """Take the shard over and continue from CURRENT.

        Raises:
            HaltedError: bad data stopped this shard, and `springtide resume` was not run.
            MigrationError: configuration or model changed since CURRENT, and `migrate` is false.
            LogReplacedError: the samples topic is not the one CURRENT was trained from.
            InputError: a quarantine of chosen samples does not fit the configuration.
        """
        keep_freed_memory()
        self._project, self._config, self._log, self._end_offsets = project, project.config, log, EndOffsets(log)
        self._versions, self._shard, self._labels = versions, shard, project.config.outputs
        self._full_request = FullRequest(project, shard)
        refuse_halted(project, versions.ledger.halts, shard)
        epoch = versions.raise_epoch(shard)
        self.plan = FeaturePlan(self._config, project.root)
        self._model = DenseModel(self._config, project.root)
        self._identity = identity_of(self._config, self.plan, self._model)
        self._curvature = None if self._config.publish.dense == "exact" else self._model.curvature
        self.generation = versions.ledger.generation()
        self.samples = self.batches = self.commits = 0
        self.held = False
        """Set if the corrupted state cannot be rolled back: training goes on, and serving keeps what it has."""
        self._penalty, self._due, self._window_closed = 0.0, False, True
        self._first: FirstBatch | None = None
        self._check: FileCheck | None = None
        self._checked = False
        self._score: Callable[[], None] = _nothing
        self.committer = self._restore(epoch, migrate)
        self._trace()
        self._mask = SampleMask.of(project, versions.ledger.quarantines.active(shard))
        source = self._progress.items
        hold = self.tables.cold.prepare if self.tables.cold else None
        self._prefetch = Prefetcher(self._reader(), self.plan, self._labels, source.copy() if source else None, hold)
        self._dense = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dense")
        self._schedule = CommitSchedule(self._config.train, project.clock, self._progress.last_at_ms)

    def wait(self, wait_ms: int) -> int:
        """An offset to which `train` can continue, once there is one or after at most `wait_ms`. Raises LogError.

        Up to it `train` does not read the log again: nothing delays the commit of what it learns.
        """
        return self._prefetch.wait(wait_ms)

    def train(self, stop_offset: int, stop: threading.Event) -> None:
        """Learn from every complete batch of records below `stop_offset`, with commits on the way and at the end.

        It returns early if a rollback is due. When it returns, everything is committed; when it raises, no commit is in
        progress.

        Raises:
            HaltedError: a batch's loss is not finite or above the limit.
            FencedError: another trainer took the shard over.
        """
        with collector_paused():
            self._train(stop_offset, stop)

    def _train(self, stop_offset: int, stop: threading.Event) -> None:
        self._renew_mask()
        batch: AdmittedBatch | None = None
        try:
            while batch := batch or self._admit_first(stop_offset, stop):
                due = self._commit_due(batch)
                # A version must not hold rows of the batch after it.
                batch = self._learn(batch, None if due or stop.is_set() else stop_offset)
                if due:
                    self.commit()
                    if self.rollback_due:
                        break
            if self._uncommitted:
                self.commit()
            self._publish_needed(stop)
        finally:  # whatever the reason: a commit in progress needs this thread
            self.committer.drain()

    def commit(self, *, flush: bool = False) -> VersionId:
        """Begin to commit what was learned; with `flush`, everything withheld is published too.

        Returns the version's id. It is committed and published when the next commit begins or `train` returns.
        """
        self._score_last()
        id = self.committer.begin(self._snapshot(flush))
        gc.collect()  # what `collector_paused` left, mostly nothing
        self._uncommitted, self._first, self._check, self._checked = False, None, None, False
        self._compared = not measures(self._config)
        self._progress.committed()
        # What an operator quarantined meanwhile applies to everything read from here on.
        self._renew_mask()
        self.commits += 1
        self._schedule.committed(self._progress.last_at_ms)
        return id

    @property
    def rollback_due(self) -> bool:
        """Whether the state at the last commit is to be rolled back, as `gate.on_corrupted` has it."""
        gate, asked = self._progress.gate, self._config.gate
        if gate is None or asked is None or asked.on_corrupted != "rollback" or self.held:
            return False
        return gate.state == "corrupted" and not self._uncommitted

    @property
    def offset(self) -> int:
        """Offset in the samples partition up to which the shard has learned; in any thread."""
        return self._progress.position.offset

    def status(self) -> dict[str, Any]:
        """Version, position and validation, for people and for JSON."""
        current = self._lineage.current
        return {
            "shard": self._shard,
            "version": str(current) if current else None,
            "position": list(self._progress.position),
            "samples_seen": self._progress.samples_seen,
            "log_time_ms": self._progress.last_at_ms,
            "rows": {name: len(each.table) for name, each in self.tables.by_name.items()},
            **({"cold_rows": self.tables.cold.rows()} if self.tables.cold else {}),
            "validation": self._progress.validation(),
            **({"gate": self._progress.gate.report()} if self._progress.gate else {}),
        }

    def readings(self) -> Iterator[Reading]:
        """Readings for Prometheus, in any thread; without the lag while the log is unavailable. Raises LogError."""
        lag = self._end_offsets.lag(self._config.topics.samples, self._shard, self._progress.position.offset)
        yield metrics.TRAIN_SAMPLES.reading(self.samples, self._shard)
        yield metrics.TRAIN_BATCHES.reading(self.batches, self._shard)
        yield metrics.TRAIN_EVENT_TIME.reading(self._progress.last_at_ms / 1000, self._shard)
        yield metrics.TRAIN_PENALTY.reading(self._penalty, self._shard)
        if gate := self._progress.gate:
            report = gate.report()
            yield metrics.GATE_STATE.reading(STATES.index(report["state"]), self._shard)
            for kind in ("calibration", "gain"):
                yield metrics.GATE_EVIDENCE.reading(report[kind], self._shard, kind)
        if lag is not None:
            yield metrics.TRAIN_LAG.reading(lag, self._shard)
        yield from self.committer.gauges.readings()

    def close(self) -> None:
        """Stop reading ahead; finish commit and hooks. What was not committed is learned again after the next start."""
        self._prefetch.close()
        self._dense.shutdown()
        self.committer.close()

    def full_requested(self) -> bool:
        """Whether an operator has requested a full snapshot."""
        return self._full_request.pending()

    def _publish_needed(self, stop: threading.Event) -> None:
        """Commit until the full snapshot that an operator or a migration needs is published; mostly once."""
        self.committer.drain()
        while (self.full_requested() or self._lineage.migrating) and not stop.is_set():
            self.commit()
            self.committer.drain()

    def _restore(self, epoch: int, migrate: bool) -> Committer:
        """Restore CURRENT, or begin empty; returns what commits from there on."""
        log_id = self._log.log_id(self._config.topics.samples)
        serving = serving_digest(self._config, self.plan, self._model)
        origin = VersionOrigin(self._shard, epoch, self.generation, log_id, self._identity, serving)
        restored = restore_shard(self._config, self._versions, origin, self._model, migrate)
        self.tables, self._progress, self._lineage = restored.tables, restored.progress, restored.lineage
        self._uncommitted = restored.lineage.migrating
        self._compared = restored.lineage.migrating or not measures(self._config)
        return Committer(self._project, self._log, self._versions, origin, restored, self._model)

    def _reader(self) -> BatchReader | ShuffledReader:
        topic, size, window = (
            self._config.topics.samples,
            self._config.model.batch_size,
            self._config.train.shuffle_window,
        )
        start, excluded = self._progress.position, Excluded(self._quarantined, self._skipped)
        reader = BatchReader(self._log, topic, self._shard, start, window or size, excluded)
        return (
            reader
            if window is None
            else ShuffledReader(reader, start, self._progress.samples_seen, size, self._config.model.seed)
        )

    def _admit_first(self, stop_offset: int, stop: threading.Event) -> AdmittedBatch | None:
        """The batch at the position, if there is one to learn."""
        prepared = None if stop.is_set() and self._window_closed else self._next(stop_offset)
        if prepared is None:
            return None
        self._publish_held_file(prepared)
        return self._admit(prepared, self._progress.position, self._progress.last_at_ms)

    def _admit_ahead(self, batch: AdmittedBatch, stop_offset: int, *, gather: bool) -> AdmittedBatch | None:
        """The batch after `batch`, also gathered if asked; None if it is not ready or a sweep comes first."""
        prepared = None if self.tables.sweep_due(batch.at_s) else self._prefetch.next_if_ahead(stop_offset)
        if prepared is None:
            return None
        following = self._admit(prepared, batch.prepared.batch.end, batch.at_ms)
        return replace(following, inputs=self._gather(following)) if gather else following

    def _admit(self, prepared: PreparedBatch, position: SamplePosition, log_ms: int) -> AdmittedBatch:
        """Look up and admit the keys of the batch at `position`, which follows log time `log_ms`."""
        begins = SamplePosition(position.offset, position.row + prepared.batch.window_row)
        batch = self.tables.admit(prepared, max(log_ms, int(prepared.batch.at_ms.max())), begins)
        self.committer.dictionary.note(self.plan, prepared.own(), batch.new_keys)
        return batch

    def _learn(self, batch: AdmittedBatch, stop_offset: int | None) -> AdmittedBatch | None:
        """Learn one batch: gather, score, update, expire, and move the position.

        Returns the next batch below `stop_offset` if it could be admitted meanwhile.
        """
        following = None
        inputs = self._gather(batch) if batch.inputs is None else batch.inputs
        self._keep_first(batch.prepared, inputs)
        # What expires is decided by rows that have learned everything.
        late = self._config.train.pipeline_depth > 1 and not self.tables.sweep_due(batch.at_s)
        step = self._dense.submit(self._model.step, inputs, batch.prepared.targets)
        try:
            self._score_last()
            self.tables.learn_late()
            self._model.learn_scaling(batch.prepared.shown_dense)
            self.committer.serve()
            if late:
                self.tables.defer()
            if stop_offset is not None:
                following = self._admit_ahead(batch, stop_offset, gather=late)
        finally:
            wait([step])
        try:
            self._apply(batch, step.result(), inputs, late=late)
        except ModelError as failure:
            row = failure.row if isinstance(failure, UserCodeError) else None
            raise self._halt(batch.prepared.batch, Problem(str(failure), row)) from None
        return following

    def _gather(self, batch: AdmittedBatch) -> Float32s:
        """The input of the network, scaled."""
        inputs = self.tables.gather(batch)
        self._model.scale(inputs[: batch.prepared.rows])
        return inputs

    def _keep_first(self, prepared: PreparedBatch, inputs: Float32s) -> None:
        """Of the first batch after a commit: what the trainer computes, to compare what serving holds with it.

        Not while the gate holds what serving would need, and not before there is a version.
        """
        if self._compared:
            return
        self._compared = True
        healthy = self._progress.gate is None or self._progress.gate.state == "healthy"
        if not healthy or (self._lineage.current is None and not self.committer.busy):
            return
        try:
            outputs = self._model.outputs(inputs[: min(len(prepared.batch), MOST_SAMPLES)])
        except ModelError:  # the step fails on this batch likewise, and halts the shard
            return
        self._first = FirstBatch.of(self._config, prepared, inputs, outputs)

    def _publish_held_file(self, prepared: PreparedBatch) -> None:
        """Before the first batch after a commit: publish the file that the gate held there, if the batch allows it.

        Later batches decide nothing: what was learned since would be in the version, and its rows are not scored yet.
        """
        gate, log_ms = self._progress.gate, self._progress.last_at_ms
        first = not (self._checked or self._uncommitted)
        if first and gate and gate.state != "healthy" and self.committer.file_due(log_ms):
            self.committer.drain()
            while self.committer.holds_file(gate.state, log_ms):
                self._check = self._check_file(prepared, gate)
                if self._check is None or not self._check.passed:
                    break
                self.commit()
                self.committer.drain()
        self._checked = True

    def _check_file(self, prepared: PreparedBatch, gate: Gate) -> FileCheck | None:
        """Compare what serving would predict with the trainer, as of CURRENT; None if the network fails on it."""
        inputs, n = self.tables.gather_known(prepared), len(prepared.batch)
        self._model.scale(inputs[: prepared.rows])
        try:
            first = FirstBatch.of(self._config, prepared, inputs, self._model.outputs(inputs[:n]))
            outputs = self.committer.outputs_with_file(first, self._snapshot(flush=False))
        except ModelError:  # the step fails on this batch likewise, and halts the shard
            return None
        samples = gate_samples(self._config, prepared, outputs)
        calibrated = not gate.objects(samples) if len(samples) else None
        check = FileCheck(relative_loss(first, outputs), ALLOWED * self._config.publish.loss, calibrated)
        metrics.GATE_FILE_CHECKS.labels(str(self._shard), check.outcome).inc()
        return check

    def _apply(self, admitted: AdmittedBatch, result: StepResult, inputs: Float32s, *, late: bool) -> None:
        """Update rows, validation and progress by the result of the dense step on `inputs`.

        Rows learn with the next batch if they are `late`.
        """
        batch, at_ms, at_s = admitted.prepared.batch, admitted.at_ms, admitted.at_s
        # A batch with many compensations has a loss below zero; it explodes on either side.
        limit = self._config.train.loss_limit
        if not abs(result.sample_loss) <= limit:
            row = outlier(admitted.prepared, result.logits, result.losses)
            raise self._halt(batch, Problem(f"loss {result.sample_loss:g}, limit {limit:g}", row))
        if not (result.finite and np.isfinite(result.penalty)):
            problem = f"weights of the network are not finite after the batch, its own losses are {result.penalty:g}"
            raise self._halt(batch, Problem(problem, first_not_finite(result.gradient[: len(batch)])))
        self._penalty = result.penalty
        self._score = partial(score_batch, self._labels, self._progress, admitted.prepared, result, at_ms)
        if self._progress.gate:
            self._progress.gate.score(gate_samples(self._config, admitted.prepared, result.logits))
        of_samples = result.gradient[: len(batch)]
        try:
            (self.tables.learn_later if late else self.tables.learn)(admitted, result.gradient)
        except InputError as failure:
            raise self._halt(batch, Problem(str(failure), first_not_finite(of_samples))) from None
        self._progress.loss = self._progress.loss.plus(result.summed_loss, at_s, self._config.train.half_life_s)
        weight, before = admitted.prepared.targets.weight, self._progress.samples_seen
        self._progress.importance.learned(inputs, of_samples, weight, before, at_s)
        if self._progress.items and admitted.prepared.items:
            self._progress.items.apply(admitted.prepared.items)
        self.tables.sweep(at_s)
        self._progress.learned(batch.at_ms, batch.end, at_ms)
        self._window_closed = batch.closes_window
        self._schedule.learned(at_ms)
        self.samples, self.batches, self._uncommitted = self.samples + len(batch), self.batches + 1, True

    def _score_last(self) -> None:
        """Count the batch learned last in progressive validation: beside the step of the next, or before a commit."""
        score, self._score = self._score, _nothing
        score()

    def _trace(self) -> None:
        """Have TensorFlow trace now what commits call: the first ones would stall training for it."""
        if not measures(self._config):
            return
        inputs = np.zeros((min(self._config.model.batch_size, MOST_SAMPLES), self._model.layout.columns), np.float32)
        with suppress(ModelError):  # a batch shows whether the network fails
            self._model.outputs(inputs)
            self._model.outputs_by(self._model.serving_bytes(), inputs)

    def _renew_mask(self) -> None:
        active = self._versions.ledger.quarantines.active(self._shard)
        self._mask = SampleMask.of(self._project, active, self._mask)

    def _quarantined(self, samples: pa.RecordBatch, at_ms: Int64s, offset: int) -> Bools:
        return self._mask.excluded(samples, at_ms, offset)

    def _skipped(self, offset: int) -> bool:
        return self._mask.quarantines.covers(offset)

    def _next(self, stop_offset: int) -> PreparedBatch | None:
        try:
            prepared = self._prefetch.next(stop_offset)
        except InvalidBatchError as failure:
            raise self._halt(failure.batch, Problem(str(failure), failure.row)) from None
        except RecordError as failure:
            if self._uncommitted:  # the batches before the record are learned completely, and no other is admitted
                self.commit()
            foreign = with_foreign_neighbours(self._log, failure)
            raise halt_at_record(self._project, self._versions.ledger.halts, foreign) from None
        if prepared is None:
            self._pass_quarantined()
        return prepared

    def _pass_quarantined(self) -> None:
        """Move the position behind samples in quarantine: nothing is left to read there."""
        passed = self._prefetch.passed()
        if passed is not None and passed > self._progress.position:
            self._progress.position, self._uncommitted = passed, True

    def _halt(self, batch: Batch, problem: Problem) -> HaltedError:
        position = self._progress.position
        return halt_shard(self._project, self._versions.ledger.halts, self._shard, position, batch, problem)

    def _commit_due(self, batch: AdmittedBatch) -> bool:
        """Whether a commit follows `batch`: one that became due inside a window follows its last batch."""
        self._due |= self._schedule.due(self.batches + 1, batch.at_ms, self.committer.busy, self.committer.stall_s)
        if not batch.prepared.batch.closes_window:
            return False
        due, self._due = self._due, False
        return due

    def _snapshot(self, flush: bool) -> BoundarySnapshot:
        """The shard at this boundary, apart from its rows."""
        tables, importance = self.tables.by_name.items(), self._progress.importance
        return BoundarySnapshot(
            progress=replace(self._progress),
            dense=self._model.weights_bytes(),
            serving_dense=self._model.serving_bytes(),
            curvature=self._curvature,
            training_state=training_state_of(self.tables, self._progress, self._identity),
            validation=self._progress.validation(),
            importance={name: each.mean for name, each in importance.of_inputs().items()},
            table_importance={name: each.mean for name, each in importance.of_tables().items()},
            tables={name: table.counts() for name, table in tables},
            admission={name: table.admitter.digest() for name, table in tables},
            quarantines_seen=self._mask.quarantines.ids(),
            flush=flush,
            gate=self._progress.gate.state if self._progress.gate else "healthy",
            first=self._first,
            check=self._check,
        )


def _nothing() -> None:
    """No batch is left to be scored."""
