"""One trainer shard: learns from its samples partition, commits versions, publishes what each of them changed.

The store's position is the truth. Opening a shard takes it over (a new epoch), restores CURRENT and says again what was
committed but not published. Learning is a function of the samples log; commits are made beside it and change nothing.

The dense step of a batch runs in a thread of its own. This one meanwhile answers the commit under way, finds the next
batch's keys and gives rows to those that earned one: nothing of that reads or writes what the step is about to change.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.arrays.block import Int64s
from pipeline.configuration.project import Project
from pipeline.configuration.training import Train
from pipeline.errors import HaltedError, InputError, LogReplacedError, MigrationError
from pipeline.features.plan import FeaturePlan
from pipeline.formats.atomic_file import write_atomically
from pipeline.logs.end_offsets import EndOffsets
from pipeline.logs.log import Log
from pipeline.model.dense import DenseModel, StepResult
from pipeline.model.identity import differences, identity_of, serving_digest
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading
from pipeline.trainer.batch.batches import Batch, BatchReader, SamplePosition
from pipeline.trainer.batch.prefetch import InvalidBatchError, Prefetcher, PreparedBatch
from pipeline.trainer.commit.checkpoint import (
    BoundarySnapshot,
    ShardProgress,
    empty_views,
    filters_of,
    identity_in,
    restore_progress,
    restore_tables,
)
from pipeline.trainer.commit.committer import Committer, Lineage, Writer
from pipeline.trainer.tables.tables import Tables
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store import VersionStore


@dataclass(frozen=True)
class AdmittedBatch:
    """A batch whose keys have been found; those that earned a row have one."""

    prepared: PreparedBatch
    at_ms: int
    """The log's time once it is learned."""


class TrainerShard:
    """The training loop of one shard. One thread at a time; another trainer on the same shard fences this one."""

    def __init__(
        self, project: Project, log: Log, versions: VersionStore, shard: int, *, migrate: bool = False
    ) -> None:
        """Take the shard over and continue from CURRENT.

        Raises:
            HaltedError: bad data stopped this shard and nobody has said `springtide resume`.
            MigrationError: configuration or model changed since CURRENT, and `migrate` is false.
            LogReplacedError: the samples topic is not the one CURRENT was trained from.
        """
        self._project, self._config, self._log, self._ends = project, project.config, log, EndOffsets(log)
        self._versions, self._shard = versions, shard
        _refuse_halted(versions, shard)
        epoch = versions.raise_epoch(shard)
        self.plan = FeaturePlan(self._config, project.root)
        self._model = DenseModel(self._config, project.root)
        self._identity = identity_of(self._config, self.plan, self._model)
        self.generation = versions.ledger.generation()
        self.samples = self.batches = self.commits = 0
        self.committer = self._restore(epoch, migrate)
        self._quarantines = versions.ledger.quarantines.active(shard)
        topic = self._config.topics.samples
        reader = BatchReader(
            log, topic, shard, self._progress.position, self._config.model.batch_size, self._quarantined
        )
        self._prefetch = Prefetcher(reader, self.plan, self._config.samples.labels)
        self._dense = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dense")
        self._committed_at_s, self._committed_at_ms = project.clock.monotonic_s(), self._progress.last_at_ms

    def wait(self, wait_ms: int) -> int:
        """An offset that `train` can go on to, as soon as there is one, after `wait_ms` at most. Raises LogError.

        Up to it `train` asks the log for nothing more: nothing stands between what it learns and the commit.
        """
        return self._prefetch.wait(wait_ms)

    def train(self, stop_offset: int, stop: threading.Event) -> None:
        """Learn from every whole batch of records below `stop_offset`, committing on the way and at the end.

        Returns when all of it is committed; nothing is under way when it raises either.

        Raises:
            HaltedError: a batch's loss is no number or above the limit.
            FencedError: somebody took over.
        """
        self._quarantines = self._versions.ledger.quarantines.active(self._shard)
        found: AdmittedBatch | None = None
        try:
            while found := found or self._find_first(stop_offset, stop):
                due = self._due(found)
                # A version holds nothing of the batch behind it.
                found = self._learn(found, None if due or stop.is_set() else stop_offset)
                if due:
                    self.commit()
            if self._uncommitted:
                self.commit()
        finally:  # whatever ended it: a commit under way needs this thread
            self.committer.settle()

    def commit(self, *, flush: bool = False) -> VersionId:
        """Begin to make what was learned a version; with `flush`, everything withheld goes out too.

        Returns the version's id. It is committed and published when the next commit begins or `train` returns.
        """
        id = self.committer.begin(self._snapshot(flush))
        self._uncommitted = False
        self._progress.first_at_ms = np.iinfo(np.int64).max
        # What an operator quarantined meanwhile holds for everything read from here on.
        self._quarantines = self._versions.ledger.quarantines.active(self._shard)
        self.commits += 1
        self._committed_at_s, self._committed_at_ms = self._project.clock.monotonic_s(), self._progress.last_at_ms
        return id

    def status(self) -> dict[str, Any]:
        """Where the shard stands, for people and for JSON."""
        current = self._lineage.current
        return {
            "shard": self._shard,
            "version": str(current) if current else None,
            "position": list(self._progress.position),
            "samples_seen": self._progress.samples_seen,
            "log_time_ms": self._progress.last_at_ms,
            "rows": {name: len(field.table) for name, field in self.tables.fields.items()},
            "validation": self._validation(),
        }

    def readings(self) -> Iterator[Reading]:
        """What Prometheus is told, in any thread; no lag while the log is away. Raises LogError."""
        lag = self._ends.lag(self._config.topics.samples, self._shard, self._progress.position.offset)
        yield metrics.TRAIN_SAMPLES.reading(self.samples, self._shard)
        yield metrics.TRAIN_BATCHES.reading(self.batches, self._shard)
        yield metrics.TRAIN_EVENT_TIME.reading(self._progress.last_at_ms / 1000, self._shard)
        if lag is not None:
            yield metrics.TRAIN_LAG.reading(lag, self._shard)
        yield from self.committer.gauges.readings()

    def close(self) -> None:
        """Stop reading ahead and let commit and hooks finish. What was not committed is learned again by the next."""
        self._prefetch.close()
        self._dense.shutdown()
        self.committer.close()

    def _restore(self, epoch: int, migrate: bool) -> Committer:
        """Take up tables, weights and progress of CURRENT, or empty ones; returns what commits from there on."""
        labels = self._config.samples.labels
        log_id = self._log.log_id(self._config.topics.samples)
        current = self._versions.current(self._shard)
        self._lineage = Lineage(current, None, migrating=False)
        views = empty_views(self._config)
        self.tables, self._progress = Tables(self._config), ShardProgress.start(labels)
        self._uncommitted, next_handles, serving_dense = False, {}, b""
        if current is not None:
            commit = self._versions.restore(current)
            self._check_log(log_id, commit.log_id)
            kept = self._kept_fields(commit, migrate)
            self.tables, views = restore_tables(commit, self._config, kept)
            self._progress = restore_progress(commit, labels)
            self._load_dense(commit)
            next_handles, serving_dense = dict(commit.next_handles), self._model.serving_bytes()
            if not self._lineage.migrating:
                self._lineage.commits_since_full = len(self._versions.ledger.chain(current)) - 1
        serving = serving_digest(self._config, self.plan, self._model)
        writer = Writer(self._shard, epoch, self.generation, log_id, self._identity, serving)
        committer = Committer(self._project, self._log, self._versions, writer, self._lineage, self.tables)
        committer.open(views, next_handles, serving_dense)
        return committer

    def _check_log(self, log_id: str, trained_from: str) -> None:
        if trained_from != log_id:
            raise LogReplacedError(
                f"topic {self._config.topics.samples} has id {log_id}, version {self._lineage.current} was trained "
                f"from {trained_from}. hint: the topic was made again; roll back or start a new state folder"
            )

    def _kept_fields(self, commit: Commit, migrate: bool) -> set[str]:
        """Fields whose rows go on; where anything changed and `migrate` allows it, changed fields start empty."""
        before = identity_in(commit)
        changed = differences(before, self._identity)
        self._lineage.migrating = bool(changed)
        if changed and not migrate:
            raise MigrationError(
                f"version {self._lineage.current} was trained under another configuration or model: "
                f"{'; '.join(changed)}. hint: pass --migrate (new and changed fields start empty, dropped ones go), "
                "or undo the change"
            )
        names = {field.name for field in self._config.fields}
        same = {n for n in names if all(before.get(p) == self._identity.get(p) for p in (f"field {n}", f"input {n}"))}
        return same & set(commit.fields)

    def _load_dense(self, commit: Commit) -> None:
        if not self._lineage.migrating:
            self._model.load_weights(commit.dense)
        else:
            self._model.load_matching(commit.dense)
            self._uncommitted = True

    def _find_first(self, stop_offset: int, stop: threading.Event) -> AdmittedBatch | None:
        """The batch at the position, where there is one to learn."""
        prepared = None if stop.is_set() else self._next(stop_offset)
        return self._find(prepared, self._progress.position, self._progress.last_at_ms) if prepared else None

    def _find_ahead(self, found: AdmittedBatch, stop_offset: int) -> AdmittedBatch | None:
        """The batch behind `found`; None where it is not ready, or a sweep comes first."""
        prepared = None if self.tables.sweep_due(found.at_ms // 1000) else self._prefetch.ahead(stop_offset)
        return self._find(prepared, found.prepared.batch.end, found.at_ms) if prepared else None

    def _find(self, prepared: PreparedBatch, position: SamplePosition, last_at_ms: int) -> AdmittedBatch:
        """Find and admit the keys of the batch at `position`, before which the log's time is `last_at_ms`."""
        at_ms = max(last_at_ms, int(prepared.batch.at_ms.max()))
        admitted = self.tables.admit(prepared, at_ms // 1000, position)
        self.committer.dictionary.note(self.plan, prepared, admitted)
        return AdmittedBatch(prepared, at_ms)

    def _learn(self, found: AdmittedBatch, stop_offset: int | None) -> AdmittedBatch | None:
        """One step: gather, score, learn, expire, and move the position.

        Returns the next batch below `stop_offset`, where it could be found on the way.
        """
        prepared, following = found.prepared, None
        step = self._dense.submit(self._model.step, self.tables.gather(prepared), prepared.targets)
        try:
            self.committer.serve()
            if stop_offset is not None:
                following = self._find_ahead(found, stop_offset)
        finally:
            wait([step])
        self._take(found, step.result())
        return following

    def _take(self, found: AdmittedBatch, result: StepResult) -> None:
        """Bring what the dense step gave back to the rows, and move the position."""
        prepared, at_ms = found.prepared, found.at_ms
        batch, progress = prepared.batch, self._progress
        # A batch that takes many negatives back has a loss below zero; it explodes on either side.
        limit = self._config.train.loss_limit
        if not abs(result.loss) <= limit:
            raise self._halt(batch, f"loss {result.loss:g}, limit {limit:g}")
        self._score(prepared, result.logits)
        try:
            self.tables.learn(result.gradient, at_ms // 1000)
        except InputError as failure:
            raise self._halt(batch, str(failure)) from None
        self.tables.sweep(at_ms // 1000)
        progress.position, progress.last_at_ms = batch.end, at_ms
        self._committed_at_ms = self._committed_at_ms or at_ms
        progress.first_at_ms = min(progress.first_at_ms, int(batch.at_ms.min()))
        progress.samples_seen += len(batch)
        self.samples, self.batches, self._uncommitted = self.samples + len(batch), self.batches + 1, True

    def _score(self, prepared: PreparedBatch, logits: np.ndarray[Any, Any]) -> None:
        targets = prepared.targets
        for i, validation in enumerate(self._progress.validations.values()):
            positive, negative = targets.scored_positive[:, i], targets.scored_negative[:, i]
            validation.score(logits[:, i], positive, negative, prepared.batch.at_ms)

    def _quarantined(self, at_ms: Int64s, offset: int) -> npt.NDArray[np.bool_]:
        return self._quarantines.mask(at_ms, offset)

    def _next(self, stop_offset: int) -> PreparedBatch | None:
        try:
            return self._prefetch.next(stop_offset)
        except InvalidBatchError as failure:
            raise self._halt(failure.batch, str(failure)) from None

    def _halt(self, batch: Batch, problem: str) -> HaltedError:
        """Stop the line, durably, with the batch kept for inspection; returns the error to raise."""
        position = self._progress.position
        kept = self._project.state / "halted" / f"shard-{self._shard}-at-{position.offset}-{position.row}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_batches([batch.samples]), sink)
        write_atomically(kept, [sink.getvalue()])
        reason = f"{problem}, at offset {position.offset} row {position.row}"
        self._versions.ledger.halts.set(self._shard, reason, str(kept.relative_to(self._project.root)))
        return _halted_error(self._shard, reason, str(kept.relative_to(self._project.root)))

    def _due(self, found: AdmittedBatch) -> bool:
        """Whether a commit follows `found`."""
        train = self._config.train
        if train.commit_every_batches and (self.batches + 1) % train.commit_every_batches == 0:
            return True
        learned_ms = found.at_ms - (self._committed_at_ms or found.at_ms)
        if train.commit_every_log_s and learned_ms >= train.commit_every_log_s * 1000:
            return True
        passed_s = self._project.clock.monotonic_s() - self._committed_at_s
        return not self.committer.busy and passed_s >= pause_s(train, self.committer.stall_s)

    def _snapshot(self, flush: bool) -> BoundarySnapshot:
        """What this boundary is, apart from the rows."""
        return BoundarySnapshot(
            progress=replace(self._progress),
            dense=self._model.weights_bytes(),
            serving_dense=self._model.serving_bytes(),
            filters=filters_of(self.tables, self._progress, self._identity),
            validation=self._validation(),
            admission={n: (len(f.table), f.admitter.digest()) for n, f in self.tables.fields.items()},
            quarantines_seen=self._quarantines.ids(),
            flush=flush,
        )

    def _validation(self) -> dict[str, Any]:
        return {label: validation.report() for label, validation in self._progress.validations.items()}


def pause_s(train: Train, stall_s: float) -> float:
    """Seconds from one commit by the clock to the next, where training stood still for `stall_s` of the first.

    >>> [pause_s(Train(commit_every_s=1, commit_share=0.2), stall_s) for stall_s in (0.05, 0.5)]
    [1.0, 2.5]
    """
    return max(train.commit_every_s, stall_s / train.commit_share)


def _refuse_halted(versions: VersionStore, shard: int) -> None:
    if halt := versions.ledger.halts.get(shard):
        raise _halted_error(shard, halt.reason, halt.batch_file)


def _halted_error(shard: int, reason: str, kept: str) -> HaltedError:
    return HaltedError(
        f"shard {shard} is halted: {reason}; the batch is in {kept}. "
        "hint: look at it, then springtide quarantine add FROM..TO, then springtide resume"
    )
