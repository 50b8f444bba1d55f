"""Plans a rollback: the target of each shard, what is undone, and which samples training skips from now on.

Read-only: it reads the version ledger and the samples log and changes nothing. `act.py` carries out the plan.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.configuration.project import Project
from pipeline.errors import RollbackError
from pipeline.logs.events.sample_block import SampleBlock, sample_times
from pipeline.logs.interface.log import Log, ReadLimits
from pipeline.process.clock import LATEST_MS
from pipeline.process.instant import format_instant
from pipeline.quarantine.effect import Effect, effect_of
from pipeline.quarantine.sample_mask import Choice, SampleMask
from pipeline.versions.ledger.quarantine import Quarantine
from pipeline.versions.ledger.sample_records import SampleRecords
from pipeline.versions.state import VersionId, VersionSummary
from pipeline.versions.store.version_store import VersionStore


@dataclass(frozen=True)
class ShardPlan:
    """The plan for one shard.

    Attributes:
        current: CURRENT.
        target: the version to restore.
        versions: number of versions undone.
        samples: number of samples unlearned.
        rows_touched: served entries set or removed by the undone versions; a key counts once per version.
        target_last_at_ms: latest sample time learned up to the target.
        current_last_at_ms: latest sample time learned up to CURRENT.
    """

    current: VersionId
    target: VersionId
    versions: int
    samples: int
    rows_touched: int
    target_last_at_ms: int
    current_last_at_ms: int


@dataclass(frozen=True)
class RollbackPlan:
    """What a rollback would do.

    Attributes:
        reason: the request, in words.
        shards: one plan for each shard that has a version.
        quarantine_ms: (from, to), end exclusive, of the sample times that training will skip.
        generation: the new generation.
        choice: which samples of that time training will skip; None: all of them.
        effect: what the chosen samples touch, from the targets on; None without a choice.
        gate_of: the shard whose gate asked for it; None for an operator.
    """

    reason: str
    shards: tuple[ShardPlan, ...]
    quarantine_ms: tuple[int, int]
    generation: int
    choice: Choice | None = None
    effect: Effect | None = None
    gate_of: int | None = None

    @property
    def quarantine(self) -> Quarantine:
        """The quarantine to add."""
        return Quarantine(0, self.reason, self.quarantine_ms, selection=self.choice.selection if self.choice else None)

    def describe(self) -> dict[str, Any]:
        """The plan as JSON-able values; versions are strings."""
        shards = [
            {**asdict(shard), "current": str(shard.current), "target": str(shard.target)} for shard in self.shards
        ]
        chosen = {} if self.choice is None else self.choice.selection.describe()
        effect = {} if self.effect is None else {"skipped": asdict(self.effect)}
        return {
            "reason": self.reason,
            "shards": shards,
            "quarantine_ms": self.quarantine_ms,
            **chosen,
            **effect,
            "generation": self.generation,
            "gate_of": self.gate_of,
        }


def plan_rollback(
    project: Project,
    log: Log,
    *,
    before_ms: int | None = None,
    to: VersionId | None = None,
    quarantine_ms: tuple[int, int] | None = None,
    choice: Choice | None = None,
) -> RollbackPlan:
    """Plan a rollback to before a time, or to a version.

    Each shard is rolled back to its latest ancestor version that has learned from no sample at or after `before_ms`.

    Args:
        project: the project of the model.
        log: holds the samples.
        before_ms: everything learned from samples at or after this time is undone.
        to: the target of one shard; the target of every other shard is its latest version without later samples.
        quarantine_ms: (from, to), end exclusive, of the sample times to skip from now on. By default from `before_ms`
            (or just after the target's latest sample) to the latest sample in the samples log, trained from or not.
        choice: which samples of that time to skip; by default the time then has no end: a bad source may go on.

    Raises as `effect_of`, and:
        RollbackError: neither or both of `before_ms` and `to`, nothing to undo, or a shard has no version that old.
        VersionError: version `to` does not exist.
        RecordError: a record of the samples log cannot be read and is not in quarantine.
    """
    if (before_ms is None) == (to is None):
        raise RollbackError("rollback needs a time or a version, not both. run: springtide rollback --before TIME")
    with closing(VersionStore(project, log)) as store:
        if to is not None:
            before_ms = store.ledger.version(to).last_at_ms + 1
        assert before_ms is not None
        shards = tuple(_plan_shard(store.lineage(shard), before_ms, to) for shard in store.ledger.shards())
        if all(plan.target == plan.current for plan in shards):
            raise RollbackError(_nothing_to_undo(shards, before_ms))
        if quarantine_ms is None:
            end_ms = LATEST_MS if choice else _latest_sample_ms(project, log, store, before_ms)
            quarantine_ms = before_ms, end_ms + 1
        reason = f"rollback to {to}" if to else f"rollback to before {format_instant(before_ms)}"
        plan = RollbackPlan(reason, shards, quarantine_ms, store.ledger.generation() + 1, choice)
        return plan if choice is None else replace(plan, effect=_effect_of(project, log, store, plan, choice))


def _effect_of(project: Project, log: Log, store: VersionStore, plan: RollbackPlan, choice: Choice) -> Effect:
    """What the chosen samples that would be read again touch."""
    plan.quarantine.check()
    targets = {shard.target.shard: store.ledger.version(shard.target) for shard in plan.shards}
    starts = {shard: (target.offset, target.row) for shard, target in targets.items()}
    return effect_of(project, log, store, SampleMask.planned(plan.quarantine, choice), starts)


def _plan_shard(lineage: Sequence[VersionSummary], before_ms: int, to: VersionId | None) -> ShardPlan:
    current = lineage[-1]
    if to is not None and to.shard == current.id.shard:
        candidates = [version for version in lineage if version.id == to]
        if not candidates:
            raise RollbackError(
                f"version {to} was undone: it is not an ancestor of CURRENT {current.id}. run: springtide versions"
            )
    else:
        candidates = [version for version in lineage if version.last_at_ms < before_ms]
    if not candidates:
        first = lineage[0]
        raise RollbackError(
            f"shard {current.id.shard} has no version from before {format_instant(before_ms)}, "
            f"its earliest is {first.id} of {format_instant(first.last_at_ms)}. "
            "hint: roll back to a later time, or train from scratch in another folder"
        )
    target = candidates[-1]
    undone = [version for version in lineage if version.id.sequence > target.id.sequence]
    return ShardPlan(
        current=current.id,
        target=target.id,
        versions=len(undone),
        samples=current.samples_seen - target.samples_seen,
        rows_touched=sum(version.rows_touched for version in undone),
        target_last_at_ms=target.last_at_ms,
        current_last_at_ms=current.last_at_ms,
    )


def _latest_sample_ms(project: Project, log: Log, store: VersionStore, before_ms: int) -> int:
    """The latest sample time that training has read or will read; at least `before_ms`."""
    latest_ms = before_ms
    for shard in store.ledger.shards():
        current = store.lineage(shard)[-1]
        latest_ms = max(latest_ms, current.last_at_ms, _latest_unread_ms(project, log, shard, current.offset))
    return latest_ms


def _latest_unread_ms(project: Project, log: Log, shard: int, offset: int) -> int:
    """The latest sample time in the shard's samples from `offset` on; 0 if there are none. Raises RecordError."""
    topic = project.config.topics.samples
    if topic not in log.topics():
        return 0
    samples = SampleRecords(project, log, shard)
    latest_ms, offset, end = 0, max(offset, log.begin_offset(topic, shard)), log.end_offset(topic, shard)
    while offset < end and (records := log.read(topic, shard, offset, ReadLimits(records=256))):
        latest_ms = max(latest_ms, *(_latest_in(block) for _, block in samples.decode_all(records)), 0)
        offset = records[-1].offset + 1
    return latest_ms


def _latest_in(block: SampleBlock) -> int:
    return int(sample_times(block.batch).max(initial=0))


def _nothing_to_undo(shards: Sequence[ShardPlan], before_ms: int) -> str:
    if not shards:
        return "there is no version yet, so nothing to undo. run: springtide run train --until-end"
    latest_ms = max(plan.current_last_at_ms for plan in shards)
    return (
        f"nothing was learned at or after {format_instant(before_ms)}, "
        f"the latest sample learned from is of {format_instant(latest_ms)}. "
        "hint: to exclude later samples from training, springtide quarantine add"
    )
