"""The retention ladder: all versions for a while, then one in ten minutes, then one a day; pinned ones always.

Plan, then act. Time is the log's. A kept version whose chain would break is written again as the net of the chain; the
keys that dropped versions touched are kept in a file beside it, because a rollback past them must name those keys.
"""

import fcntl
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.configuration.training import RetentionPolicy
from pipeline.versions.files import read_commit, read_touched, write_commit, write_touched
from pipeline.versions.ledger.ledger import Compaction, Ledger
from pipeline.versions.merge import merge_commits
from pipeline.versions.state import UInt64s, VersionId, VersionSummary, union_by_field, version_path

_TEN_MINUTES_MS = 600_000
_DAY_MS = 86_400_000
_FILE = re.compile(r"\.?(\d{12})\.(\d+)\.\d+\.(version|touched)")
"""A version's file, whole or temporary: sequence, epoch, rewrites."""


@dataclass(frozen=True)
class RetentionPlan:
    """What thinning one shard means.

    Attributes:
        dropped: versions to forget, oldest first.
        rewritten: kept versions whose chain loses a part: each with the versions it is the net of, itself last.
        bridged: kept versions whose predecessors go: each with those predecessors, oldest first.
    """

    dropped: tuple[VersionSummary, ...] = ()
    rewritten: tuple[tuple[VersionSummary, ...], ...] = ()
    bridged: tuple[tuple[VersionSummary, tuple[VersionSummary, ...]], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.dropped)


def plan_retention(
    versions: Sequence[VersionSummary],
    pinned: Collection[VersionId],
    ladder: RetentionPolicy,
    now_ms: int,
    undone: Collection[VersionId] = (),
) -> RetentionPlan:
    """What the ladder drops. Pure.

    Args:
        versions: all of one shard, parents before their children.
        pinned: never touched, nor what restoring them needs.
        ladder: the steps.
        now_ms: the log's time that ages count from.
        undone: versions that a rollback left behind. Nobody goes back to them, so a generation's go all at once, when
            the newest of them leaves the ladder's first step.
    """
    by_id = {version.id: version for version in versions}
    kept = _on_the_ladder([version for version in versions if version.id not in undone], ladder, now_ms)
    kept |= _still_recent([version for version in versions if version.id in undone], ladder, now_ms)
    untouched: set[VersionId] = set()
    for id in pinned:
        untouched |= _restore_chain(by_id, id)
    kept |= untouched
    dropped = tuple(version for version in versions if version.id not in kept)
    rewritten, bridged = [], []
    for version in versions:
        gone = _dropped_before(by_id, version, kept)
        if version.id not in kept or not gone:
            continue
        if not version.full:
            rewritten.append((*gone, version))
        if gone[0].parent is not None:  # otherwise nothing older is left to go back to
            bridged.append((version, gone))
    return RetentionPlan(dropped, tuple(rewritten), tuple(bridged))


class Retention:
    """Carries the ladder out for one versions folder. One process at a time: a second one finds nothing to do."""

    def __init__(self, folder: Path, ledger: Ledger, ladder: RetentionPolicy) -> None:
        self._folder = folder
        self._ledger = ledger
        self._ladder = ladder

    def plan(self, shard: int, now_ms: int) -> RetentionPlan:
        """What `act` would do now."""
        versions = sorted(self._ledger.versions(shard), key=lambda v: (v.id.sequence, v.id.generation))
        undone = {version.id for version in versions} - {version.id for version in self._ledger.lineage(shard)}
        return plan_retention(versions, self._ledger.protected(shard), self._ladder, now_ms, undone)

    def act(self, shard: int, now_ms: int) -> RetentionPlan:
        """Write what is to be kept, change the ledger, then delete. Killed at any point, doing it again finishes it."""
        with self._alone() as alone:
            if not alone:
                return RetentionPlan()
            plan = self.plan(shard, now_ms)
            if plan:
                self._carry_out(shard, plan)
            self._sweep(shard)
            return plan

    def _carry_out(self, shard: int, plan: RetentionPlan) -> None:
        rewritten, touched = {}, {}
        for chain in plan.rewritten:
            net = merge_commits([read_commit(self._folder / version.path) for version in chain])
            path = version_path(net.id, chain[-1].epoch, chain[-1].rewrites + 1)
            rewritten[net.id] = (path, net.full, write_commit(self._folder / path, net))
        for version, gone in plan.bridged:
            path = version_path(version.id, version.epoch, version.rewrites + 1, "touched")
            write_touched(self._folder / path, self._touched_by(version, gone))
            touched[version.id] = path
        self._ledger.compact(Compaction(shard, [version.id for version in plan.dropped], rewritten, touched))

    def _touched_by(self, version: VersionSummary, gone: Sequence[VersionSummary]) -> dict[str, UInt64s]:
        paths = [path for dropped in gone for path in (dropped.touched_path, dropped.path)] + [version.touched_path]
        return union_by_field([read_touched(self._folder / path) for path in paths if path is not None])

    def _sweep(self, shard: int) -> None:
        """Delete files the ledger does not name: dropped and replaced ones, and what dead writers left.

        A file of the newest epoch may be a commit under way, so only older epochs' and replaced ones go.
        """
        versions = self._ledger.versions(shard)
        named = {self._folder / path for v in versions for path in (v.path, v.touched_path) if path is not None}
        newest = self._ledger.epoch(shard)
        settled = max((v.id.sequence for v in versions if v.epoch == newest), default=-1)
        for path in self._folder.glob(f"g*/s{shard}-of-*/*"):
            parts = _FILE.match(path.name)
            if parts is None or path in named:
                continue
            sequence, epoch = int(parts[1]), int(parts[2])
            if epoch < newest or sequence <= settled:
                path.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this process may thin now."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / "retention.lock", "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def _on_the_ladder(versions: Sequence[VersionSummary], ladder: RetentionPolicy, now_ms: int) -> set[VersionId]:
    """Versions that age alone keeps. Of each span the oldest stays: a choice once made holds as time goes on."""
    kept: set[VersionId] = set()
    taken: set[tuple[int, int]] = set()
    for version in versions:
        age_s = (now_ms - version.last_at_ms) / 1000
        if age_s <= ladder.all_s:
            kept.add(version.id)
            continue
        if ladder.daily_s is not None and age_s > max(ladder.daily_s, ladder.ten_minutes_s):
            continue
        span_ms = _TEN_MINUTES_MS if age_s <= ladder.ten_minutes_s else _DAY_MS
        place = (span_ms, version.last_at_ms // span_ms)
        if place not in taken:
            taken.add(place)
            kept.add(version.id)
    return kept


def _still_recent(undone: Sequence[VersionSummary], ladder: RetentionPolicy, now_ms: int) -> set[VersionId]:
    """Undone versions of the generations whose newest one is young."""
    recent = {v.id.generation for v in undone if now_ms - v.last_at_ms <= ladder.all_s * 1000}
    return {version.id for version in undone if version.id.generation in recent}


def _restore_chain(by_id: dict[VersionId, VersionSummary], id: VersionId) -> set[VersionId]:
    """`id` and what restoring it needs."""
    needed = {id}
    version = by_id[id]
    while not version.full and version.parent is not None:
        version = by_id[version.parent]
        needed.add(version.id)
    return needed


def _dropped_before(
    by_id: dict[VersionId, VersionSummary], version: VersionSummary, kept: Collection[VersionId]
) -> tuple[VersionSummary, ...]:
    """The dropped versions between a version and its nearest kept ancestor, oldest first."""
    gone: list[VersionSummary] = []
    parent = version.parent
    while parent is not None and parent not in kept:
        gone.append(by_id[parent])
        parent = by_id[parent].parent
    return tuple(reversed(gone))
