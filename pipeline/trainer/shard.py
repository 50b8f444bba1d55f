"""One trainer shard: learns from its samples partition, commits versions, publishes what each of them changed.

The store's position is the truth. Opening a shard takes it over (a new epoch), restores CURRENT and says again what was
committed but not published. Learning is a function of the samples log: commits change nothing about it. Order of a
commit: version file, CURRENT, delta, then the files that are due; a crash in between loses nothing and repeats nothing
that serving would see twice.
"""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.features.plan import FeaturePlan
from pipeline.ground.block import Int64s
from pipeline.ground.config import Train
from pipeline.ground.crashpoint import pass_point
from pipeline.ground.durable import write_whole
from pipeline.ground.errors import HaltedError, LogReplacedError, MigrationError
from pipeline.ground.project import Project
from pipeline.logs.log import Log
from pipeline.model.dense import DenseModel
from pipeline.model.identity import differences, digest_of, identity_of, serving_digest
from pipeline.publish.channel import DeltaChannel
from pipeline.publish.hooks import Hooks
from pipeline.publish.levels import LevelPublisher
from pipeline.publish.publisher import Prepared, Publisher, Step
from pipeline.trainer.batches import Batch, BatchReader
from pipeline.trainer.checkpoint import (
    Standing,
    field_change,
    filters_of,
    identity_in,
    restore_standing,
    restore_tables,
    take_changes,
    training_digest,
)
from pipeline.trainer.dictionary import Dictionary
from pipeline.trainer.prefetch import Prefetcher, PreparedBatch, SpoiltBatchError
from pipeline.trainer.tables import Tables
from pipeline.versions.served import ServedView
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store import VersionStore


class TrainerShard:
    """The training loop of one shard. One thread at a time; another trainer on the same shard fences this one."""

    def __init__(
        self, project: Project, log: Log, versions: VersionStore, shard: int, *, migrate: bool = False
    ) -> None:
        """Take the shard over and continue from CURRENT.

        Raises:
            HaltedError: bad data stopped this shard and nobody has said `freshet resume`.
            MigrationError: configuration or model changed since CURRENT, and `migrate` is false.
            LogReplacedError: the samples topic is not the one CURRENT was trained from.
        """
        self._project, self._config, self._log = project, project.config, log
        self._versions, self._shard = versions, shard
        _refuse_halted(versions, shard)
        self._epoch = versions.take_over(shard)
        self._channel = DeltaChannel(project, log, shard)
        self.plan = FeaturePlan(self._config, project.root)
        self._model = DenseModel(self._config, project.root)
        self._identity = identity_of(self._config, self.plan, self._model)
        self._serving_digest = serving_digest(self._config, self.plan, self._model)
        self._current = versions.current(shard)
        self.generation = versions.ledger.generation()
        self._migrating = False
        self.samples = self.batches = self.commits = 0
        self._restore(migrate)
        self._hooks = Hooks(project, log)
        self._levels = LevelPublisher(project, versions, self._hooks, shard)
        self._dictionary = Dictionary(project, shard)
        self._quarantines = versions.ledger.quarantines(shard)
        topic = self._config.topics.samples
        reader = BatchReader(
            log, topic, shard, self._standing.position, self._config.model.batch_size, self._quarantined
        )
        self._prefetch = Prefetcher(reader, self.plan, self._config.samples.labels)
        self._committed_at_s, self._pause_s = project.clock.monotonic_s(), self._config.train.commit_every_s
        self._committed_at_ms = self._standing.last_at_ms

    def train(self, stop_offset: int, stop: threading.Event) -> None:
        """Learn from every whole batch of records below `stop_offset`, committing on the way and at the end.

        Raises HaltedError where a batch's loss is no number or above the limit, FencedError where somebody took over.
        """
        self._quarantines = self._versions.ledger.quarantines(self._shard)
        while not stop.is_set() and (prepared := self._next(stop_offset)):
            self._learn(prepared)
            if self._due():
                self.commit()
        if self._uncommitted:
            self.commit()

    def commit(self, *, flush: bool = False) -> VersionId:
        """Make what was learned a version and publish its delta; with `flush`, everything withheld goes out too."""
        began_at_s = self._project.clock.monotonic_s()
        touched = take_changes(self.tables)
        previous = self._current
        id = self._versions.next_id(self._shard)
        step = Step(
            self.generation, self._shard, id.shards, previous.sequence if previous else 0, id.sequence,
            min(self._standing.first_at_ms, self._standing.last_at_ms), self._standing.last_at_ms,
            {"name": self._config.name, "digest": self._serving_digest},
        )  # fmt: skip
        prepared = self._publisher.prepare(step, touched, self._model.serving_bytes(), flush=flush)
        self._versions.commit(self._commit_of(id, step, touched, prepared))
        self._current, self._uncommitted = id, False
        self._standing.first_at_ms = np.iinfo(np.int64).max
        pass_point("trainer.after_commit")
        self._channel.say(prepared.delta, prepared.encoded)
        self._levels.announce_realtime(prepared)
        pass_point("trainer.after_publish")
        self._dictionary.write()
        self._publish_files()
        self._versions.retain(self._shard, self._standing.last_at_ms)
        # What an operator quarantined meanwhile holds for everything read from here on.
        self._quarantines = self._versions.ledger.quarantines(self._shard)
        self.commits += 1
        self._committed_at_s = self._project.clock.monotonic_s()
        self._pause_s = pause_s(self._config.train, self._committed_at_s - began_at_s)
        self._committed_at_ms = self._standing.last_at_ms
        return id

    def status(self) -> dict[str, Any]:
        """Where the shard stands, for people and for JSON."""
        return {
            "shard": self._shard,
            "version": str(self._current) if self._current else None,
            "position": list(self._standing.position),
            "samples_seen": self._standing.samples_seen,
            "log_time_ms": self._standing.last_at_ms,
            "rows": {name: len(table.rows) for name, table in self.tables.fields.items()},
            "validation": self._validation(),
        }

    def close(self) -> None:
        """Stop reading ahead and let hooks finish. What is not committed is learned again by the next trainer."""
        self._prefetch.close()
        self._hooks.close()
        self._dictionary.close()

    def _restore(self, migrate: bool) -> None:
        """Tables, weights, served view and standing of CURRENT; empty where there is none."""
        labels = self._config.samples.labels
        log_id = self._log.log_id(self._config.topics.samples)
        self._views: dict[str, ServedView] = {field.name: ServedView(field.dim) for field in self._config.fields}
        self.tables, self._standing = Tables(self._config), Standing.start(labels)
        self._log_id, self._uncommitted = log_id, False
        self._commits_since_full: int | None = None
        next_handles: dict[str, int] = {}
        if self._current is not None:
            commit = self._versions.restore(self._current)
            if commit.log_id != log_id:
                raise LogReplacedError(
                    f"topic {self._config.topics.samples} has id {log_id}, version {self._current} was trained from "
                    f"{commit.log_id}. hint: the topic was made again; roll back or start a new state folder"
                )
            kept = self._kept_fields(commit, migrate)
            self.tables, self._views = restore_tables(commit, self._config, kept)
            self._standing = restore_standing(commit, labels)
            self._load_dense(commit)
            next_handles = dict(commit.next_handles)
            self._channel.say_missing([self._versions.delta(self._current)])
            if not self._migrating:
                self._commits_since_full = len(self._versions.ledger.chain(self._current)) - 1
        self._publisher: Publisher = Publisher(
            self._config.publish,
            {name: table.rows for name, table in self.tables.fields.items()},
            self._views,
            next_handles,
            self._model.serving_bytes() if self._current else b"",
        )

    def _kept_fields(self, commit: Commit, migrate: bool) -> set[str]:
        """Fields whose rows go on; where anything changed and `migrate` allows it, changed fields start empty."""
        before = identity_in(commit)
        changed = differences(before, self._identity)
        self._migrating = bool(changed)
        if changed and not migrate:
            raise MigrationError(
                f"version {self._current} was trained under another configuration or model: {'; '.join(changed)}. "
                "hint: pass --migrate (new and changed fields start empty, dropped ones go), or undo the change"
            )
        names = {field.name for field in self._config.fields}
        same = {n for n in names if all(before.get(p) == self._identity.get(p) for p in (f"field {n}", f"input {n}"))}
        return same & set(commit.fields)

    def _load_dense(self, commit: Commit) -> None:
        if not self._migrating:
            self._model.load_weights(commit.dense)
        else:
            self._model.load_matching(commit.dense)
            self._uncommitted = True

    def _learn(self, prepared: PreparedBatch) -> None:
        """One step: admit, gather, score, learn, expire, and move the position."""
        batch, standing = prepared.batch, self._standing
        at_ms = max(standing.last_at_ms, int(batch.at_ms.max()))
        for name, table in self.tables.fields.items():
            admitted = table.admit(prepared.fields[name], at_ms // 1000, standing.position)
            if len(admitted):
                self._dictionary.note(name, self.plan, prepared, admitted)
        result = self._model.step(self.tables.gather(prepared), prepared.targets)
        # A batch that takes many negatives back has a loss below zero; it explodes on either side.
        limit = self._config.train.loss_limit
        if not abs(result.loss) <= limit:
            raise self._halt(batch, f"loss {result.loss:g}, limit {limit:g}")
        self._score(prepared, result.logits)
        self.tables.learn(prepared, result.gradient, at_ms // 1000)
        for table in self.tables.fields.values():
            table.sweep(at_ms // 1000)
        standing.position, standing.last_at_ms = batch.end, at_ms
        self._committed_at_ms = self._committed_at_ms or at_ms
        standing.first_at_ms = min(standing.first_at_ms, int(batch.at_ms.min()))
        standing.samples_seen += len(batch)
        self.samples, self.batches, self._uncommitted = self.samples + len(batch), self.batches + 1, True

    def _score(self, prepared: PreparedBatch, logits: np.ndarray[Any, Any]) -> None:
        targets = prepared.targets
        for i, progress in enumerate(self._standing.progress.values()):
            positive, negative = targets.scored_positive[:, i], targets.scored_negative[:, i]
            progress.score(logits[:, i], positive, negative, prepared.batch.at_ms)

    def _quarantined(self, at_ms: Int64s, offset: int) -> npt.NDArray[np.bool_]:
        return self._quarantines.mask(at_ms, offset)

    def _next(self, stop_offset: int) -> PreparedBatch | None:
        try:
            return self._prefetch.next(stop_offset)
        except SpoiltBatchError as failure:
            raise self._halt(failure.batch, str(failure)) from None

    def _halt(self, batch: Batch, problem: str) -> HaltedError:
        """Stop the line, durably, with the batch kept for inspection; returns the error to raise."""
        position = self._standing.position
        kept = self._project.state / "halted" / f"shard-{self._shard}-at-{position.offset}-{position.row}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_batches([batch.samples]), sink)
        write_whole(kept, [sink.getvalue()])
        reason = f"{problem}, at offset {position.offset} row {position.row}"
        self._versions.ledger.halt(self._shard, reason, str(kept.relative_to(self._project.root)))
        return _halted_error(self._shard, reason, str(kept.relative_to(self._project.root)))

    def _due(self) -> bool:
        train = self._config.train
        if train.commit_every_batches and self.batches % train.commit_every_batches == 0:
            return True
        learned_ms = self._standing.last_at_ms - self._committed_at_ms
        if train.commit_every_log_s and learned_ms >= train.commit_every_log_s * 1000:
            return True
        return self._project.clock.monotonic_s() - self._committed_at_s >= self._pause_s

    def _publish_files(self) -> None:
        """Incrementals and fulls that are due; after a migration a full, the only way on for a replica."""
        if self._migrating:
            self._levels.publish_full(self._views)
            self._migrating = False
        else:
            self._levels.publish_due(self._standing.last_at_ms, self._views)

    def _commit_of(self, id: VersionId, step: Step, touched: dict[str, Any], prepared: Prepared) -> Commit:
        full = self._commits_since_full is None or self._commits_since_full + 1 >= self._config.train.full_every_commits
        self._commits_since_full = 0 if full else (self._commits_since_full or 0) + 1
        dense = self._model.weights_bytes()
        views = self._views if full else {}
        return Commit(
            id=id,
            parent=self._current,
            epoch=self._epoch,
            offset=self._standing.position.offset,
            row=self._standing.position.row,
            log_id=self._log_id,
            first_at_ms=step.first_at_ms,
            last_at_ms=step.last_at_ms,
            fields={
                name: field_change(table, touched[name], prepared, name, views.get(name))
                for name, table in self.tables.fields.items()
            },
            dense=dense,
            filters=filters_of(self.tables, self._standing, self._identity),
            validation=self._validation(),
            quarantines_seen=self._quarantines.ids(),
            next_handles=prepared.next_handles,
            model_digest=digest_of(self._identity),
            digest=training_digest(self.tables, dense, self._standing),
            served_digest=prepared.served_digest,
            delta=prepared.encoded,
            full=full,
            samples_seen=self._standing.samples_seen,
        )

    def _validation(self) -> dict[str, Any]:
        return {label: progress.report() for label, progress in self._standing.progress.items()}


def pause_s(train: Train, commit_took_s: float) -> float:
    """Seconds until the next commit by the clock, after one that took `commit_took_s`.

    >>> [pause_s(Train(commit_every_s=1, commit_share=0.2), took_s) for took_s in (0.05, 0.5)]
    [1.0, 2.0]
    """
    return max(train.commit_every_s, commit_took_s * (1 / train.commit_share - 1))


def _refuse_halted(versions: VersionStore, shard: int) -> None:
    if halt := versions.ledger.halted(shard):
        raise _halted_error(shard, halt.reason, halt.batch_file)


def _halted_error(shard: int, reason: str, kept: str) -> HaltedError:
    return HaltedError(
        f"shard {shard} is halted: {reason}; the batch is in {kept}. "
        "hint: look at it, then freshet quarantine add FROM..TO, then freshet resume"
    )
