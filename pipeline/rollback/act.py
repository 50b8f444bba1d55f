"""Carries a rollback out: fence the trainers, tell serving, let training go on from the target; nothing is deleted.

Each step is durable before the next and safe to do again: (1) plan, new generation, the trainers' fence, quarantine,
in one transaction; (2) per shard a version of the new generation that equals the target and carries a reverse delta:
the target's values of every key touched since; (3) that delta in the topic; (4) CURRENT of every shard, at once;
(5) the announcement.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.configuration.project import Project
from pipeline.logs.log import Log
from pipeline.process.crash_point import reach_crash_point
from pipeline.publish.delta_topic import DeltaPosition, DeltaWriter
from pipeline.publish.hooks import ROLLBACK, announce
from pipeline.rollback.plan import RollbackPlan
from pipeline.rollback.reverse import Reverse, reverse_of
from pipeline.versions.deltas.delta import decode_delta, encode_delta
from pipeline.versions.deltas.published import write_published
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.ledger.records import RollbackRecord, StagedVersion
from pipeline.versions.state import Commit, VersionId
from pipeline.versions.store import VersionStore


@dataclass(frozen=True)
class ShardReport:
    """What was done to one shard.

    Attributes:
        undone: CURRENT before.
        target: the version gone back to.
        version: the version of the new generation that equals it.
        rows: served entries the reverse delta sets.
        removed: keys it tombstones.
        delta_bytes: its size.
    """

    undone: str
    target: str
    version: str
    rows: int
    removed: int
    delta_bytes: int


@dataclass(frozen=True)
class Report:
    """A rollback that is done."""

    id: int
    generation: int
    quarantine: int
    shards: tuple[ShardReport, ...]

    def describe(self) -> dict[str, Any]:
        """As JSON-able values; also what is announced and kept for audit."""
        return asdict(self)


def roll_back(project: Project, log: Log, plan: RollbackPlan) -> Report:
    """Do what the plan says; when this returns, training and serving are on their way from the target.

    Raises:
        RollbackError: another rollback is half done, or the model no longer grows from a target.
        DamagedError: a file of the target is missing or damaged, or nothing says what was touched since. Nothing was
            begun.
    """
    store = VersionStore(project)
    try:
        # What cannot be read should be known, and what takes long be done, before anybody is fenced.
        prepared = {}
        for shard in plan.shards:
            store.check(shard.target)
            prepared[shard.current] = reverse_of(project, log, store, shard.target, shard.current)
        quarantine = Quarantine(0, plan.reason, times_ms=plan.quarantine_ms)
        targets = {shard.target.shard: shard.target for shard in plan.shards}
        record = store.ledger.begin_rollback(targets, quarantine, plan.describe())
        reach_crash_point("rollback.after_plan")
        return _finish(project, log, store, record, prepared)
    finally:
        store.close()


def resume_pending(project: Project, log: Log) -> list[Report]:
    """Bring rollbacks that were interrupted to their end, oldest first; does nothing where there are none."""
    store = VersionStore(project)
    try:
        return [_finish(project, log, store, record, {}) for record in store.ledger.pending_rollbacks()]
    finally:
        store.close()


def _finish(
    project: Project, log: Log, store: VersionStore, record: RollbackRecord, prepared: Mapping[VersionId, Reverse]
) -> Report:
    """From the durable plan to its end; `prepared` holds the way back from versions that may still be CURRENT."""
    if record.state == "planned":
        commits = []
        for shard, current in sorted(record.currents.items()):
            reverse = prepared.get(current) or reverse_of(project, log, store, record.targets[shard], current)
            commits.append(_version_of(store, record, shard, reverse))
        staged = [store.stage(commit) for commit in commits]
        for version in staged:
            _tell_serving(project, log, version)
            reach_crash_point("rollback.after_delta")
        store.ledger.switch_rollback(record, staged, _report(record, commits).describe())
    report = _report(record, [_switched(store, record, shard) for shard in sorted(record.targets)])
    announce(project, log, ROLLBACK, f"rollback/{record.id}", report.describe())
    store.ledger.finish_rollback(record, report.describe())
    return report


def _version_of(store: VersionStore, record: RollbackRecord, shard: int, reverse: Reverse) -> Commit:
    """The new generation's first version of a shard: the target again, nothing changed, with the reverse delta.

    Handles go on where the undone branch ended, so that none is given out twice.
    """
    target = record.targets[shard]
    id = VersionId(record.generation, shard, target.shards, target.sequence + 1)
    of_target = decode_delta(reverse.target.delta)
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
        quarantines_seen=store.ledger.quarantines(shard).ids(),
        next_handles=reverse.next_handles,
        delta=encode_delta(delta),
        full=False,
    )


def _tell_serving(project: Project, log: Log, version: StagedVersion) -> None:
    """Say the reverse delta, unless it is the last thing said already, and keep it as a file for replicas that miss it.

    Fences the old trainer's channel first.
    """
    id, delta = version.commit.id, decode_delta(version.commit.delta)
    channel = DeltaWriter(project, log, id.shard)
    write_published(project.published, delta, version.commit.delta)
    if channel.last_position() != DeltaPosition(id.generation, id.sequence):
        channel.append(delta, version.commit.delta)


def _switched(store: VersionStore, record: RollbackRecord, shard: int) -> Commit:
    target = record.targets[shard]
    return store.outline(VersionId(record.generation, shard, target.shards, target.sequence + 1))


def _report(record: RollbackRecord, commits: list[Commit]) -> Report:
    return Report(record.id, record.generation, record.quarantine, tuple(_shard_report(record, c) for c in commits))


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
