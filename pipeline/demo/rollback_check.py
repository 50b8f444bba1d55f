"""Rolls back like an operator and compares what a replica then serves with the target version, byte for byte.

A branch of the same trainer that is not rolled back shows the damage that the bots would have continued to cause.
"""

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.demo.folder import fresh_folder
from pipeline.demo.hourly_pipeline import HourlyPipeline
from pipeline.demo.scenario import Scenario
from pipeline.logs.open import open_log
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.export import served_table
from pipeline.serving.replica import Replica
from pipeline.trainer.commit.full_on_command import publish_full
from pipeline.versions.deltas.served_view import build_served_view
from pipeline.versions.ledger.topic import LedgerTopic
from pipeline.versions.state import VersionId
from pipeline.versions.store.version_store import VersionStore


@dataclass(frozen=True)
class RollbackOutcome:
    """Result of the rollback.

    Attributes:
        undone: CURRENT before the rollback.
        target: the version restored.
        version: the first version of the new generation, which equals the target.
        unlearned: samples undone.
        quarantine_ms: (from, to) of the sample times that training skips.
        plan_s: seconds from the command to the plan.
        act_s: seconds from the plan until the reverse delta is in the log and CURRENT equals the target.
        serve_s: seconds from then until the replica serves the target.
        delta_bytes: size of the reverse delta.
        equal: whether the replica's digest and its export of every table equal those of the target.
    """

    undone: str
    target: str
    version: str
    unlearned: int
    quarantine_ms: tuple[int, int]
    plan_s: float
    act_s: float
    serve_s: float
    delta_bytes: int
    equal: bool


def roll_back_bots(pipeline: HourlyPipeline, replica: Replica, scenario: Scenario) -> RollbackOutcome:
    """Do what `springtide rollback --before TIME --quarantine FROM..TO` does, then catch up the replica.

    The quarantine ends one attribution window after the last bot: until then its clicks become positive samples.
    """
    project, clock = pipeline.project, pipeline.project.clock
    first, last = scenario.bots
    quarantine_ms = scenario.at_ms(first), scenario.at_ms(last) + round(project.config.samples.window_s * 1000)
    began_s = clock.monotonic_s()
    plan = plan_rollback(project, pipeline.log, before_ms=scenario.at_ms(first), quarantine_ms=quarantine_ms)
    planned_s = clock.monotonic_s()
    shard = roll_back(project, pipeline.log, plan).shards[0]
    acted_s = clock.monotonic_s()
    replica.catch_up()
    served_s = clock.monotonic_s()
    return RollbackOutcome(
        undone=shard.undone,
        target=shard.target,
        version=shard.version,
        unlearned=plan.shards[0].samples,
        quarantine_ms=quarantine_ms,
        plan_s=planned_s - began_s,
        act_s=acted_s - planned_s,
        serve_s=served_s - acted_s,
        delta_bytes=shard.delta_bytes,
        equal=serves_version(replica, project, plan.shards[0].target),
    )


def serves_version(replica: Replica, project: Project, id: VersionId) -> bool:
    """Whether the replica's export equals a version's served view: keys, handles, precisions, bytes and digest."""
    with closing(VersionStore(project)) as store:
        if replica.digest(id.shard) != store.ledger.version(id).served_digest:
            return False
        served = store.served(id)
        return all(replica.export(name).equals(served_table([build_served_view(served[name])])) for name in served)


def branch_without_rollback(
    pipeline: HourlyPipeline, out: Path, topics: Sequence[str] = ("deltas", "notices", "ledger")
) -> Project:
    """A project with a copy of CURRENT that trains on the same samples and has separate versions and `topics`.

    Training of the pipeline must be stopped. A full snapshot of the branch is published for its replica.
    """
    original = pipeline.project
    root = fresh_folder(out / "without-rollback")
    for name in ("springtide.toml", "model.py"):
        shutil.copy(original.root / name, root / name)
    copied = root / original.config.state_dir / original.versions.name
    shutil.copytree(original.versions, copied, ignore=shutil.ignore_patterns("ledger"))  # backups are of its topic
    names = original.config.topics
    branch_topics = names.model_copy(update={topic: f"{getattr(names, topic)}-without-rollback" for topic in topics})
    logs = original.config.logs.model_copy(update={"path": str(original.logs)})
    config = original.config.model_copy(update={"topics": branch_topics, "logs": logs})
    project = Project(root, config, original.clock)
    with closing(open_log(project)) as log:
        LedgerTopic(log, branch_topics.ledger, config.logs.shards).begin(
            LedgerTopic(log, names.ledger, config.logs.shards).snapshots()
        )
        with closing(VersionStore(project, log)) as store:
            publish_full(project, log, store, 0)
    return project
