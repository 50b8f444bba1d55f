"""Carries out a rollback. Nothing is deleted: training and serving continue from the target in a new generation.

Each step is durable before the next begins and may be repeated: the set of keys of a selection, if it has one; plan,
new generation and quarantine, in one record of the ledger; the fence of the trainers, and CURRENT of each shard as it
is then; for each shard a version of the new generation that equals the target and carries a reverse delta, the target's
values of every key touched since; that delta as a published file and in the deltas topic; CURRENT of all shards, in one
record; the announcement.
`ARCHITECTURE.md`, "The steps of a rollback", has them with what comes before and after.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.configuration.project import Project
from pipeline.logs.interface.log import Log
from pipeline.process.crash_point import reach_crash_point
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.publish.hooks.notices import ROLLBACK, announce
from pipeline.rollback.plan import RollbackPlan
from pipeline.rollback.reverse import ReverseContent, reverse_content
from pipeline.versions.deltas.delta import complete_delta, decode_delta, encode_delta
from pipeline.versions.deltas.delta_version import DeltaVersion, holds_delta
from pipeline.versions.deltas.published_files import write_published
from pipeline.versions.ledger.rollback_record import RollbackRecord
from pipeline.versions.ledger.staged_version import StagedVersion
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store.version_store import VersionStore


@dataclass(frozen=True)
class ShardReport:
    """Result for one shard.

    Attributes:
        undone: CURRENT before the rollback.
        target: the version restored.
        version: the version of the new generation that equals the target.
        rows: served entries that the reverse delta sets.
        removed: keys that it removes.
        delta_bytes: size of the reverse delta.
    """

    undone: str
    target: str
    version: str
    rows: int
    removed: int
    delta_bytes: int


@dataclass(frozen=True)
class RollbackReport:
    """Result of a completed rollback."""

    id: int
    generation: int
    quarantine: int
    shards: tuple[ShardReport, ...]

    def describe(self) -> dict[str, Any]:
        """The report as JSON-able values; it is announced and stored for audit."""
        return asdict(self)


def roll_back(project: Project, log: Log, plan: RollbackPlan) -> RollbackReport:
    """Carry out the plan; on return, trainers that start and replicas that catch up continue from the target.

    Raises:
        RollbackError: another rollback is unfinished, or a target is no longer an ancestor of CURRENT.
        DamagedError: a file of the target is missing or damaged, or the keys touched since cannot be determined.
            Nothing has changed.
    """
    with closing(VersionStore(project, log)) as store:
        # Unreadable files are found, and the slow reads are done, before any trainer is fenced.
        prepared = {}
        for shard in plan.shards:
            store.check(shard.target)
            prepared[shard.current] = reverse_content(project, log, store, shard.target, shard.current)
            _check_deltas(project, log, shard.current)
        if plan.choice is not None:
            plan.choice.store(project)
        targets = {shard.target.shard: shard.target for shard in plan.shards}
        record = store.ledger.begin_rollback(targets, plan.quarantine, plan.describe())
        reach_crash_point("rollback.after_plan")
        return _finish(project, log, store, record, prepared)


def _check_deltas(project: Project, log: Log, current: VersionId) -> None:
    """Read the deltas topic as publishing the reverse delta will. Raises LogError."""
    topic = project.config.topics.deltas
    if topic in log.topics():
        holds_delta(log, topic, current.shard, DeltaVersion(current.generation, current.sequence))


def finish_rollbacks(project: Project, log: Log) -> list[RollbackReport]:
    """Complete unfinished rollbacks, earliest first; returns one report for each."""
    with closing(VersionStore(project, log)) as store:
        return [_finish(project, log, store, record, {}) for record in store.ledger.unfinished_rollbacks()]


def _finish(
    project: Project,
    log: Log,
    store: VersionStore,
    record: RollbackRecord,
    prepared: Mapping[VersionId, ReverseContent],
) -> RollbackReport:
    """Continue from the durable plan; `prepared` holds reverse contents by the version that was CURRENT at planning."""
    if record.state == "planned":
        record = store.ledger.fence_rollback(record)
        commits = []
        for shard, current in sorted(record.currents.items()):
            reverse = prepared.get(current) or reverse_content(project, log, store, record.targets[shard], current)
            commits.append(_restored_commit(store, record, shard, reverse))
        staged = [store.stage(commit) for commit in commits]
        for version in staged:
            _publish_delta(project, log, version)
            reach_crash_point("rollback.after_delta")
        store.ledger.switch_rollback(record, staged, _report(record, commits).describe())
    report = _report(record, [_committed(store, record, shard) for shard in sorted(record.targets)])
    announce(project, log, ROLLBACK, f"rollback/{record.id}", report.describe())
    store.ledger.finish_rollback(record, report.describe())
    return report


def _restored_commit(store: VersionStore, record: RollbackRecord, shard: int, reverse: ReverseContent) -> Commit:
    """The first commit of a shard in the new generation: equal to the target, with the reverse delta.

    Handles continue after those of the undone versions, so that none is assigned twice.
    """
    target = record.targets[shard]
    id = VersionId(record.generation, shard, target.shards, target.sequence + 1)
    of_target = complete_delta(reverse.target.delta, reverse.target.served_dense)
    delta = replace(
        of_target,
        level="reverse",
        generation=id.generation,
        base_generation=record.currents[shard].generation,
        from_sequence=target.sequence,
        to_sequence=id.sequence,
        first_at_ms=of_target.last_at_ms,
        before=None,
        fields=reverse.fields,
    )
    return replace(
        reverse.target,
        id=id,
        parent=target,
        epoch=record.epochs[shard],
        first_at_ms=reverse.target.last_at_ms,
        quarantines_seen=store.ledger.quarantines.active(shard).ids(),
        next_handles=reverse.next_handles,
        delta=encode_delta(delta),
        served_dense=b"",
        quality=replace(reverse.target.quality, measured_loss=None, calibration={}),
        full=False,
    )


def _publish_delta(project: Project, log: Log, version: StagedVersion) -> None:
    """Fence the former trainer's delta writer, then publish the reverse delta as a file and in the topic.

    The topic is skipped if it already holds this delta.
    """
    id, delta = version.commit.id, decode_delta(version.commit.delta)
    writer = DeltaWriter(project, log, id.shard)
    write_published(project.published, delta, version.commit.delta)
    if not writer.holds(DeltaVersion(id.generation, id.sequence)):
        writer.append(delta, version.commit.delta)


def _committed(store: VersionStore, record: RollbackRecord, shard: int) -> Commit:
    target = record.targets[shard]
    return store.outline(VersionId(record.generation, shard, target.shards, target.sequence + 1))


def _report(record: RollbackRecord, commits: list[Commit]) -> RollbackReport:
    return RollbackReport(
        record.id, record.generation, record.quarantine, tuple(_shard_report(record, c) for c in commits)
    )


def _shard_report(record: RollbackRecord, commit: Commit) -> ShardReport:
    shard, delta = commit.id.shard, decode_delta(commit.delta)
    return ShardReport(
        undone=str(record.currents[shard]),
        target=str(record.targets[shard]),
        version=str(commit.id),
        rows=sum(len(field) for field in delta.fields.values()),
        removed=sum(len(field.removed) for field in delta.fields.values()),
        delta_bytes=len(commit.delta),
    )
