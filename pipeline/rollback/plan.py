"""Plans a rollback: which version each shard goes back to, what that undoes, what training must not read again.

Pure: it reads ledger and samples log and changes nothing. `act.py` carries the plan out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.configuration.project import Project
from pipeline.errors import RollbackError
from pipeline.logs.events.sample_block import SampleBlock, decode_sample_block
from pipeline.logs.log import Log, ReadLimits
from pipeline.versions.state import VersionId, VersionSummary
from pipeline.versions.store import VersionStore


@dataclass(frozen=True)
class ShardPlan:
    """What happens to one shard.

    Attributes:
        current: where it stands.
        target: where it goes back to.
        versions: how many versions are undone.
        samples: how many samples are unlearned.
        rows_touched: served entries put or removed by what is undone, a key once per version.
        target_last_at_ms: latest sample time that stays learned.
        current_last_at_ms: latest sample time learned so far.
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
        reason: how the operator asked for it.
        shards: one plan per shard that has a version.
        quarantine_ms: (from, to) of sample times, end exclusive, that training will skip.
        generation: the one that will be made.
    """

    reason: str
    shards: tuple[ShardPlan, ...]
    quarantine_ms: tuple[int, int]
    generation: int

    def describe(self) -> dict[str, Any]:
        """The plan as JSON-able values, versions by name."""
        plain = asdict(self)
        for entry, shard in zip(plain["shards"], self.shards, strict=True):
            entry["current"], entry["target"] = str(shard.current), str(shard.target)
        return plain


def plan_rollback(
    project: Project,
    log: Log,
    *,
    before_ms: int | None = None,
    to: VersionId | None = None,
    quarantine_ms: tuple[int, int] | None = None,
) -> RollbackPlan:
    """Plan to go back to before a time, or to a version.

    Each shard goes back to the newest version it grew from that has learned from no sample of `before_ms` or later.

    Args:
        project: whose model.
        log: where the samples are.
        before_ms: everything learned from samples at or after this time is undone.
        to: one shard's target; every other shard goes back to its newest version that learned from nothing later.
        quarantine_ms: (from, to), end exclusive, of the sample times to skip from now on. By default from `before_ms`
            (or just after the target's latest sample) to the newest sample in the samples log, trained from or not.

    Raises:
        RollbackError: neither or both given, nothing to undo, or a shard has no version that old.
        VersionError: `to` is not there.
    """
    if (before_ms is None) == (to is None):
        raise RollbackError("rollback needs a time or a version, not both. run: springtide rollback --before TIME")
    store = VersionStore(project)
    try:
        if to is not None:
            before_ms = store.ledger.version(to).last_at_ms + 1
        assert before_ms is not None
        shards = tuple(_plan_shard(store.lineage(shard), before_ms, to) for shard in store.ledger.shards())
        if all(plan.target == plan.current for plan in shards):
            raise RollbackError(_nothing_to_undo(shards, before_ms))
        span = quarantine_ms or (before_ms, _newest_sample_ms(project, log, store, before_ms) + 1)
        reason = f"rollback to {to}" if to else f"rollback to before {_spell(before_ms)}"
        return RollbackPlan(reason, shards, span, store.ledger.generation() + 1)
    finally:
        store.close()


def _plan_shard(lineage: Sequence[VersionSummary], before_ms: int, to: VersionId | None) -> ShardPlan:
    current = lineage[-1]
    if to is not None and to.shard == current.id.shard:
        found = [version for version in lineage if version.id == to]
        if not found:
            raise RollbackError(
                f"version {to} was undone: CURRENT {current.id} did not grow from it. run: springtide versions"
            )
    else:
        found = [version for version in lineage if version.last_at_ms < before_ms]
    if not found:
        first = lineage[0]
        raise RollbackError(
            f"shard {current.id.shard} has no version from before {_spell(before_ms)}, its earliest is {first.id} of "
            f"{_spell(first.last_at_ms)}. hint: roll back to a later time, or train anew in another folder"
        )
    target = found[-1]
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


def _newest_sample_ms(project: Project, log: Log, store: VersionStore, before_ms: int) -> int:
    """The newest sample time that training has read or has still before it; at least `before_ms`."""
    newest = before_ms
    for shard in store.ledger.shards():
        current = store.lineage(shard)[-1]
        newest = max(newest, current.last_at_ms, _newest_unread_ms(project, log, shard, current.offset))
    return newest


def _newest_unread_ms(project: Project, log: Log, shard: int, offset: int) -> int:
    """The newest sample time in the shard's samples from `offset` on; 0 where there is none."""
    topic = project.config.topics.samples
    if topic not in log.topics():
        return 0
    newest, offset, end = 0, max(offset, log.begin_offset(topic, shard)), log.end_offset(topic, shard)
    while offset < end and (records := log.read(topic, shard, offset, ReadLimits(records=256))):
        newest = max(newest, *(_newest_in(decode_sample_block(record.value)) for record in records))
        offset = records[-1].offset + 1
    return newest


def _newest_in(block: SampleBlock) -> int:
    if not len(block):
        return 0
    latest = pc.max_element_wise(block.batch.column("impression_at"), block.batch.column("click_at"))
    return int(np.max(latest.to_numpy(zero_copy_only=False)))


def _nothing_to_undo(shards: Sequence[ShardPlan], before_ms: int) -> str:
    if not shards:
        return "there is no version yet, so nothing to undo. run: springtide run train --until-end"
    newest = max(plan.current_last_at_ms for plan in shards)
    return (
        f"nothing was learned at or after {_spell(before_ms)}, the newest sample learned from is of {_spell(newest)}. "
        "hint: to keep training from reading it, springtide quarantine add"
    )


def _spell(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
