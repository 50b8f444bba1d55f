"""Rolls a corrupted shard back by itself, with `gate.on_corrupted = "rollback"`.

The target is the shard's last version in whose gate no signal had half of its evidence: what was learned from the first
bad samples on is undone. What was learned since is quarantined; samples that are not learned yet are read, and undone
by the next rollback if they are bad too. `gate.rollbacks_per_day` bounds how often; what cannot be rolled back is held.
"""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.configuration.project import Project
from pipeline.errors import RollbackError
from pipeline.logs.interface.log import Log
from pipeline.rollback.act import finish_rollbacks, roll_back
from pipeline.rollback.plan import RollbackPlan, plan_rollback
from pipeline.trainer.validation.gate.gate import GATE, without_evidence
from pipeline.versions.ledger.rollback_record import RollbackRecord
from pipeline.versions.state import VersionSummary
from pipeline.versions.store.version_store import VersionStore

_DAY_MS = 86_400_000


def roll_back_corrupted(project: Project, log: Log, versions: VersionStore, shard: int) -> None:
    """Roll the project back to the shard's last version without evidence of bad samples.

    The trainer of the shard is fenced; it has to be opened again.

    Raises:
        RollbackError: no such version is kept, it was done too often, or another shard has no version that old.
            Nothing has changed.
        DamagedError, VersionError: a version's file is missing or damaged. Nothing has changed.
    """
    roll_back(project, log, _plan(project, log, versions, shard))


def finish_rollback(project: Project, log: Log, versions: VersionStore, shard: int) -> None:
    """Complete a rollback that the gate of this shard began before its trainer ended."""
    if any(record.document.get("gate_of") == shard for record in versions.ledger.unfinished_rollbacks()):
        finish_rollbacks(project, log)


def _plan(project: Project, log: Log, versions: VersionStore, shard: int) -> RollbackPlan:
    lineage = versions.lineage(shard)
    current = lineage[-1]
    _require_few(project, versions.ledger.rollbacks(), current.last_at_ms)
    target = _last_without_evidence(versions, lineage)
    learned_ms = target.last_at_ms + 1, current.last_at_ms + 1
    plan = plan_rollback(project, log, to=target.id, quarantine_ms=learned_ms)
    reason = f"gate of shard {shard} is corrupted as of {current.id}: rollback to {target.id}"
    return replace(plan, reason=reason, gate_of=shard)


def _require_few(project: Project, rollbacks: Sequence[RollbackRecord], at_ms: int) -> None:
    gate = project.config.gate
    assert gate is not None, "a shard without a gate is never corrupted"
    began = [record.document["quarantine_ms"][0] for record in rollbacks if _asked_by_gate(record)]
    within_a_day = sum(at_ms - _DAY_MS < began_ms for began_ms in began)
    if within_a_day >= gate.rollbacks_per_day:
        raise RollbackError(
            f"the gate rolled back {within_a_day} times within a day, gate.rollbacks_per_day is "
            f"{gate.rollbacks_per_day}. run: springtide rollback --before TIME"
        )


def _asked_by_gate(record: RollbackRecord) -> bool:
    return record.document.get("gate_of") is not None


def _last_without_evidence(versions: VersionStore, lineage: Sequence[VersionSummary]) -> VersionSummary:
    for version in reversed(lineage):
        stored = versions.outline(version.id).training_state.get(GATE)
        if stored is not None and without_evidence(stored):
            return version
    raise RollbackError(
        f"shard {lineage[-1].id.shard} keeps no version without evidence of bad samples, its earliest is "
        f"{lineage[0].id}. run: springtide rollback --before TIME"
    )
