"""The operator's rollback, checked: what a replica serves afterwards against the target version, byte for byte.

Beside it a branch of the same trainer that is not rolled back, to see what the bots would have gone on to cost.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.configuration.project import Project
from pipeline.demo.folder import fresh_folder
from pipeline.demo.line import Line
from pipeline.demo.story import Story
from pipeline.publish.levels import build_served_view, publish_level
from pipeline.rollback.act import roll_back
from pipeline.rollback.plan import plan_rollback
from pipeline.serving.export import served_table
from pipeline.serving.replica import Replica
from pipeline.versions.state import VersionId
from pipeline.versions.store import VersionStore


@dataclass(frozen=True)
class Incident:
    """What the rollback did.

    Attributes:
        undone: the version that was CURRENT.
        target: the version gone back to.
        version: the new generation's first, which equals it.
        unlearned: samples undone.
        quarantine_ms: (from, to) of sample times that are not learned again.
        plan_s: seconds from the command to the plan.
        act_s: from the plan to the reverse delta in the log and CURRENT at the target.
        serve_s: from there until the replica serves the target.
        delta_bytes: size of the reverse delta.
        equal: whether every field the replica exports, and its digest, are those of the target.
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


def undo_bots(line: Line, replica: Replica, story: Story) -> Incident:
    """What `springtide rollback --before TIME --quarantine FROM..TO` does, then the replica catching up.

    The quarantine ends an attribution window after the last bot: until then its clicks become positive samples.
    """
    project, clock = line.project, line.project.clock
    first, last = story.bots
    span = story.at_ms(first), story.at_ms(last) + round(project.config.samples.window_s * 1000)
    began_s = clock.monotonic_s()
    plan = plan_rollback(project, line.log, before_ms=story.at_ms(first), quarantine_ms=span)
    planned_s = clock.monotonic_s()
    done = roll_back(project, line.log, plan).shards[0]
    acted_s = clock.monotonic_s()
    replica.catch_up()
    served_s = clock.monotonic_s()
    return Incident(
        undone=done.undone,
        target=done.target,
        version=done.version,
        unlearned=plan.shards[0].samples,
        quarantine_ms=span,
        plan_s=planned_s - began_s,
        act_s=acted_s - planned_s,
        serve_s=served_s - acted_s,
        delta_bytes=done.delta_bytes,
        equal=serves(replica, project, plan.shards[0].target),
    )


def serves(replica: Replica, project: Project, id: VersionId) -> bool:
    """Whether what the replica exports is a version's served view: keys, handles, precisions, bytes and digest."""
    store = VersionStore(project)
    try:
        if replica.digest(id.shard) != store.ledger.version(id).served_digest:
            return False
        wanted = store.served(id)
        return all(replica.export(name).equals(served_table([build_served_view(wanted[name])])) for name in wanted)
    finally:
        store.close()


def branch_off(line: Line, out: Path, topics: Sequence[str] = ("deltas", "notices")) -> Project:
    """A second trainer from the same CURRENT over the same samples, with versions and `topics` of its own.

    The line's training must be stopped. Serving the branch begins with a full snapshot, which is published here.
    """
    original = line.project
    root = fresh_folder(out / "without-rollback")
    for name in ("springtide.toml", "model.py"):
        shutil.copy(original.root / name, root / name)
    shutil.copytree(original.versions, root / original.config.state_dir / original.versions.name)
    names = original.config.topics
    own = names.model_copy(update={topic: f"{getattr(names, topic)}-without-rollback" for topic in topics})
    logs = original.config.logs.model_copy(update={"path": str(original.logs)})
    config = original.config.model_copy(update={"topics": own, "logs": logs})
    project = Project(root, config, original.clock)
    store = VersionStore(project)
    try:
        publish_level(project, line.log, store, 0, "full")
    finally:
        store.close()
    return project
