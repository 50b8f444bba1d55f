"""Retention: all versions for a period, then one per ten minutes, then one per day; protected versions always.

Plan, then act. Ages count in the log's time. A dropped version is no longer a target; its file stays as long as a
retained version is restored from it. The keys that dropped versions touched are stored in a file of their own, because
a rollback to an earlier version has to include them.
"""

import fcntl
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.arrays.types import UInt64s
from pipeline.configuration.model.training import RetentionPolicy
from pipeline.files.interface import StoredFolder
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.state import VersionId, VersionSummary, range_path, union_by_field
from pipeline.versions.store.compaction import Compaction
from pipeline.versions.store.files import write_touched
from pipeline.versions.store.listed_files import read_bridge, read_touched_by

_TEN_MINUTES_MS = 600_000
_DAY_MS = 86_400_000
_VERSION_FILE = re.compile(r"\.?(\d{12})\.(\d+)\.version")
"""A version's file, complete or temporary: sequence and epoch."""
_RANGE_FILE = re.compile(r"\.?\d{12}\.after-\d+\.(merged|touched)")
"""A file about a range of versions, complete or temporary. Only the process that holds the lock writes them."""


@dataclass(frozen=True)
class RetentionPlan:
    """What retention changes in one shard.

    Attributes:
        dropped: versions to drop, oldest first.
        bridged: retained versions whose predecessors are dropped: each with those predecessors, oldest first.
    """

    dropped: tuple[VersionSummary, ...] = ()
    bridged: tuple[tuple[VersionSummary, tuple[VersionSummary, ...]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.dropped)


def plan_retention(
    versions: Sequence[VersionSummary],
    protected: Collection[VersionId],
    policy: RetentionPolicy,
    now_ms: int,
    undone: Collection[VersionId] = (),
) -> RetentionPlan:
    """Plan what the policy drops. Pure.

    Args:
        versions: all of one shard, parents before their children.
        protected: not dropped.
        policy: how long versions are retained, and how densely.
        now_ms: the log's time that ages count from.
        undone: versions that a rollback undid. They are no rollback targets, so those of a generation are dropped
            together, when the latest of them passes the age up to which all versions are retained.
    """
    by_id = {version.id: version for version in versions}
    retained = _retained_by_age([version for version in versions if version.id not in undone], policy, now_ms)
    retained |= _recently_undone([version for version in versions if version.id in undone], policy, now_ms)
    retained |= {id for id in protected if id in by_id}
    dropped = tuple(version for version in versions if version.id not in retained)
    bridged = []
    for version in versions:
        predecessors = _dropped_before(by_id, version, retained)
        if version.id not in retained or not predecessors:
            continue
        if predecessors[0].parent is not None:  # otherwise there is no earlier version to roll back to
            bridged.append((version, predecessors))
    return RetentionPlan(dropped, tuple(bridged))


class Retention:
    """Applies the policy to one versions folder. One process at a time: `act` does nothing in a second one."""

    def __init__(self, folder: StoredFolder, lock: Path, ledger: Ledger, policy: RetentionPolicy) -> None:
        """`lock`: a local file that processes of this machine lock."""
        self._folder, self._lock_path = folder, lock
        self._ledger, self._policy = ledger, policy

    def plan(self, shard: int, now_ms: int) -> RetentionPlan:
        """The plan that `act` would carry out now."""
        versions = sorted(self._ledger.versions(shard), key=lambda v: (v.id.sequence, v.id.generation))
        lineage = [version.id for version in self._ledger.lineage(shard)]
        protected = self._ledger.protected(shard).union(lineage[-self._policy.newest :])
        undone = {version.id for version in versions}.difference(lineage)
        return plan_retention(versions, protected, self._policy, now_ms, undone)

    def merge(self, shard: int) -> None:
        """Merge files of CURRENT; see `store/compaction.py`."""
        with self._lock() as acquired:
            if acquired:
                Compaction(self._folder, self._ledger).act(shard)

    def act(self, shard: int, now_ms: int) -> RetentionPlan:
        """Merge files, write those of touched keys, change the ledger, then delete files.

        After a crash, a second call finishes it.
        """
        with self._lock() as acquired:
            if not acquired:
                return RetentionPlan()
            Compaction(self._folder, self._ledger).act(shard)
            plan = self.plan(shard, now_ms)
            self._drop(shard, plan)
            self._delete_unlisted(shard)
            return plan

    def _drop(self, shard: int, plan: RetentionPlan) -> None:
        """Drop the versions of the plan, and the files of changes that no other version needs."""
        touched = {}
        for version, predecessors in plan.bridged:
            path = range_path(predecessors[0].parent, version.id, "touched")
            written = write_touched(self._folder / path, self._touched_by(version, predecessors))
            touched[version.id] = (path, written.digest)
        if plan or self._ledger.unneeded_files(shard):
            self._ledger.drop(shard, [version.id for version in plan.dropped], touched)

    def _touched_by(self, version: VersionSummary, predecessors: Sequence[VersionSummary]) -> dict[str, UInt64s]:
        parts = [part for dropped in predecessors for part in read_touched_by(self._folder, dropped)]
        return union_by_field([*parts, *read_bridge(self._folder, version)])

    def _delete_unlisted(self, shard: int) -> None:
        """Delete files the ledger does not list: dropped and replaced ones, and those of fenced or crashed writers.

        A version's file of the latest epoch may be a commit in progress, so only those of earlier epochs or of versions
        already committed are deleted.
        """
        versions = self._ledger.versions(shard)
        listed = {path for v in versions for path in (v.path, v.touched_path) if path is not None}
        listed |= {file.path for file in self._ledger.change_files(shard).files()}
        latest_epoch = self._ledger.epoch(shard)
        committed = max((v.id.sequence for v in versions if v.epoch == latest_epoch), default=-1)
        own = re.compile(rf"g\d+/s{shard}-of-\d+/[^/]+")
        for path, file in self._folder.list():
            if path in listed or not own.fullmatch(path):
                continue
            if version := _VERSION_FILE.match(file.base):
                in_progress = int(version[2]) == latest_epoch and int(version[1]) > committed
            else:
                in_progress = not _RANGE_FILE.match(file.base)  # a file of another program stays, too
            if not in_progress:
                file.delete()

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Acquire the folder's retention lock; yields false if another process holds it."""
        self._lock_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._lock_path, "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def _retained_by_age(versions: Sequence[VersionSummary], policy: RetentionPolicy, now_ms: int) -> set[VersionId]:
    """Versions retained for their age. The earliest of each period is: the choice stays the same as time passes."""
    retained: set[VersionId] = set()
    periods: set[tuple[int, int]] = set()
    for version in versions:
        age_s = (now_ms - version.last_at_ms) / 1000
        if age_s <= policy.all_s:
            retained.add(version.id)
            continue
        if policy.daily_s is not None and age_s > max(policy.daily_s, policy.ten_minutes_s):
            continue
        period_ms = _TEN_MINUTES_MS if age_s <= policy.ten_minutes_s else _DAY_MS
        period = (period_ms, version.last_at_ms // period_ms)
        if period not in periods:
            periods.add(period)
            retained.add(version.id)
    return retained


def _recently_undone(undone: Sequence[VersionSummary], policy: RetentionPolicy, now_ms: int) -> set[VersionId]:
    """Undone versions of the generations whose latest one is recent."""
    recent = {v.id.generation for v in undone if now_ms - v.last_at_ms <= policy.all_s * 1000}
    return {version.id for version in undone if version.id.generation in recent}


def _dropped_before(
    by_id: dict[VersionId, VersionSummary], version: VersionSummary, retained: Collection[VersionId]
) -> tuple[VersionSummary, ...]:
    """The dropped versions between a version and its nearest retained ancestor, oldest first."""
    dropped: list[VersionSummary] = []
    parent = version.parent
    while parent is not None and parent not in retained:
        dropped.append(by_id[parent])
        parent = by_id[parent].parent
    return tuple(reversed(dropped))
