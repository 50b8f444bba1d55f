"""The three levels of one chain: an incremental nets the realtime deltas of many versions, a full holds the whole view.

Neither re-quantises: rows are the bytes of the served view, so every path to a version ends in the same bytes. Files
are written first, then announced, then marked in the ledger; a retry after a crash writes the same files, and rather
announces them twice than not at all.
Incrementals never cross a rollback: the first thing published in a new generation is a full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from pipeline.arrays.block import UInt64s
from pipeline.configuration.project import Project
from pipeline.errors import DeltaError, VersionError
from pipeline.logs.log import Log
from pipeline.process.crash_point import reach_crash_point
from pipeline.publish.hooks import VERSION_PUBLISHED, Hooks
from pipeline.publish.measure import publishing
from pipeline.publish.publisher import field_delta
from pipeline.versions.deltas.delta import Delta, FieldDelta, Level, decode_delta, encode_delta
from pipeline.versions.deltas.published_files import DeltaManifest, delta_manifest, write_published
from pipeline.versions.deltas.served_view import ServedView
from pipeline.versions.deltas.superseded_files import drop_superseded
from pipeline.versions.ledger.ledger import Ledger
from pipeline.versions.state import ServedEntries, VersionId


class Versions(Protocol):
    """What publishing needs of the version store."""

    ledger: Ledger

    def served(self, id: VersionId) -> Mapping[str, ServedEntries]:
        """By field, what serving holds at a version."""

    def delta(self, id: VersionId) -> bytes:
        """The exact bytes published for a version."""


@dataclass(frozen=True)
class ServedVersion:
    """The version to publish: its id, its own delta, and by field what serving holds of it."""

    id: VersionId
    delta: Delta
    views: Mapping[str, ServedView]


def full_delta(head: ServedVersion) -> Delta:
    """The whole served view with handles and dense weights. Its `first_at_ms` is 0: everything so far is in it."""
    fields = {}
    for name, view in head.views.items():
        keys = view.keys()
        fields[name] = field_delta(view, keys, np.ones(len(keys), np.bool_), np.empty(0, np.uint64))
    return Delta(
        level="full",
        generation=head.id.generation,
        shard=head.id.shard,
        shards=head.id.shards,
        from_sequence=0,
        to_sequence=head.id.sequence,
        first_at_ms=0,
        last_at_ms=head.delta.last_at_ms,
        base_generation=head.id.generation,
        before=None,
        after=head.delta.after,
        fields=fields,
        dense=head.delta.dense,
        model=head.delta.model,
    )


def merge_deltas(deltas: Sequence[Delta], head: ServedVersion) -> Delta:
    """The net of consecutive realtime deltas that end at `head`: the last operation per key, tombstones kept.

    It applies to every version between the first one's start and the last one's end: each row is the absolute value
    that serving holds at the end.

    Raises:
        DeltaError: the deltas do not follow one another, or do not end at `head`.
    """
    _check_chain(deltas, head)
    fields = {
        name: _merge_field(view, [d.fields[name] for d in deltas if name in d.fields])
        for name, view in head.views.items()
    }
    return Delta(
        level="incremental",
        generation=head.id.generation,
        shard=head.id.shard,
        shards=head.id.shards,
        from_sequence=deltas[0].from_sequence,
        to_sequence=head.id.sequence,
        first_at_ms=min(d.first_at_ms for d in deltas),
        last_at_ms=max(d.last_at_ms for d in deltas),
        base_generation=head.id.generation,
        before=deltas[0].before,
        after=deltas[-1].after,
        fields=fields,
        dense=deltas[-1].dense,
        model=deltas[-1].model,
    )


class LevelPublisher:
    """Publishes files of one shard and says so. Not thread-safe."""

    def __init__(self, project: Project, versions: Versions, hooks: Hooks, shard: int) -> None:
        self._project, self._versions, self._hooks, self._shard = project, versions, hooks, shard

    def announce_realtime(self, delta: Delta, encoded: bytes) -> None:
        """Tell the hooks about a commit whose delta is in the topic; the bytes themselves travel there."""
        id = VersionId(delta.generation, delta.shard, delta.shards, delta.to_sequence)
        manifest = delta_manifest(delta, encoded, "")
        self._hooks.announce(VERSION_PUBLISHED, f"{id}/{delta.level}", announcement(manifest))

    def publish_full(self, views: Mapping[str, ServedView] | None = None) -> DeltaManifest | None:
        """Publish CURRENT whole; None where there is no version yet.

        Args:
            views: by field, what serving holds at CURRENT, where the caller has it; else it is read from the store.
        """
        head = self._head(views)
        return self._write(full_delta(head)) if head else None

    def publish_incremental(self, views: Mapping[str, ServedView] | None = None) -> DeltaManifest | None:
        """Publish what changed since the newest published file; None where nothing did.

        In a generation that has no file yet, and where a delta in between is no longer kept, this is a full.
        """
        head = self._head(views)
        if head is None or self._published_sequence(head.id) == head.id.sequence:
            return None
        deltas = self._deltas_since(head)
        return self._write(merge_deltas(deltas, head) if deltas else full_delta(head))

    def publish_due(self, log_ms: int, views: Mapping[str, ServedView] | None = None) -> list[DeltaManifest]:
        """Publish whatever is due by the log's time, `log_ms`: after a commit, a trainer calls this.

        A level is due when its period has passed since the last event of the newest file that serves its purpose.
        """
        policy = self._project.config.publish
        if self._due("full", ("full",), policy.full_every_s, log_ms):
            made = self.publish_full(views)
        elif self._due("incremental", ("full", "incremental"), policy.incremental_every_s, log_ms):
            made = self.publish_incremental(views)
        else:
            made = None
        return [made] if made else []

    def _due(self, level: str, counting: Sequence[str], every_s: float | None, log_ms: int) -> bool:
        """Whether `every_s` has passed since the newest file of the levels that count as `level`."""
        if every_s is None:
            return False
        reached = [at_ms for name in counting if (at_ms := self._published_at_ms(name)) is not None]
        if not reached:
            return self._versions.ledger.current(self._shard) is not None
        return log_ms - max(reached) >= every_s * 1000

    def _published_at_ms(self, level: str) -> int | None:
        """The log's time that the newest file of a level reaches; None where there is none, or nobody knows any more.

        After a rollback an older file counts again, whose version may have been thinned.
        """
        mark = self._versions.ledger.published.latest(level, self._shard)
        try:
            return self._versions.ledger.version(mark.id).last_at_ms if mark else None
        except VersionError:
            return None

    def _head(self, views: Mapping[str, ServedView] | None) -> ServedVersion | None:
        current = self._versions.ledger.current(self._shard)
        if current is None:
            return None
        if views is None:
            views = {name: build_served_view(entries) for name, entries in self._versions.served(current).items()}
        return ServedVersion(current, decode_delta(self._versions.delta(current)), views)

    def _published_sequence(self, current: VersionId) -> int | None:
        """The newest sequence published as a file in CURRENT's generation."""
        marks = [self._versions.ledger.published.latest(level, self._shard) for level in ("full", "incremental")]
        found = [mark.id.sequence for mark in marks if mark and mark.id.generation == current.generation]
        return max(found, default=None)

    def _deltas_since(self, head: ServedVersion) -> list[Delta]:
        """The deltas from the newest published file to `head`; empty where some are not kept or cross a rollback."""
        since = self._published_sequence(head.id)
        if since is None and head.id.generation > 0:
            return []
        kept = self._versions.ledger.lineage(self._shard)
        ids = [v.id for v in kept if v.id.generation == head.id.generation and v.id.sequence > (since or 0)]
        deltas = [decode_delta(self._versions.delta(id)) for id in ids]
        starts = [since or 0, *(d.to_sequence for d in deltas[:-1])]
        whole = all(d.level == "realtime" and d.from_sequence == s for d, s in zip(deltas, starts, strict=True))
        return deltas if whole else []

    def _write(self, delta: Delta) -> DeltaManifest:
        project, encoded = self._project, encode_delta(delta)
        with publishing(delta, len(encoded), project.clock):
            manifest = write_published(project.published, delta, encoded)
        reach_crash_point("publish.after_files")
        id = VersionId(delta.generation, delta.shard, delta.shards, delta.to_sequence)
        self._hooks.announce(VERSION_PUBLISHED, f"{id}/{delta.level}", announcement(manifest))
        reach_crash_point("publish.after_notice")
        self._versions.ledger.published.set(
            delta.level, id, f"g{id.generation}/s{id.shard}-of-{id.shards}/{manifest.file}"
        )
        if delta.level == "full":
            drop_superseded(project.published, self._versions.ledger, id.shard, id.shards)
        return manifest


def publish_level(project: Project, log: Log, versions: Versions, shard: int, level: Level) -> DeltaManifest | None:
    """Publish one shard's CURRENT now, as `incremental` or `full`; None where there is nothing to publish."""
    hooks = Hooks(project, log)
    try:
        publisher = LevelPublisher(project, versions, hooks, shard)
        return publisher.publish_full() if level == "full" else publisher.publish_incremental()
    finally:
        hooks.close()


def announcement(manifest: DeltaManifest) -> dict[str, Any]:
    """What hooks are told of a published delta; `file` is empty for a realtime one."""
    return {name: value for name, value in asdict(manifest).items() if name not in ("format", "first_at_ms")}


def build_served_view(entries: ServedEntries) -> ServedView:
    """A served view that holds `entries`."""
    view = ServedView(entries.dim)
    view.put(entries.keys, entries.handles, entries.bits, entries.payload)
    return view


def _merge_field(view: ServedView, changes: Sequence[FieldDelta]) -> FieldDelta:
    """Every key that some change touched: as a row where the view still holds it, as a tombstone where it was removed.

    A handle that the view does not know belongs to a key removed since, which has its tombstone.
    """
    none32, none64 = np.empty(0, np.uint32), np.empty(0, np.uint64)
    introduced: UInt64s = np.unique(np.concatenate([none64, *(c.new_keys for c in changes)]))
    removed = np.unique(np.concatenate([none64, *(c.removed for c in changes)]))
    known, there = view.keys_of(np.unique(np.concatenate([none32, *(c.handles for c in changes)])))
    keys = np.union1d(known[there], introduced)
    keys = keys[view.bits(keys) > 0]
    return field_delta(view, keys, np.isin(keys, introduced), removed)


def _check_chain(deltas: Sequence[Delta], head: ServedVersion) -> None:
    if not deltas:
        raise DeltaError(f"nothing leads to version {head.id}. hint: give its deltas")
    for before, after in pairwise(deltas):
        if (after.base_generation, after.from_sequence) != (before.generation, before.to_sequence):
            raise DeltaError(f"{after} does not follow {before}. run: springtide versions")
    for delta in deltas:
        if delta.level != "realtime" or delta.generation != head.id.generation:
            raise DeltaError(f"{delta} is no realtime delta of generation {head.id.generation}. hint: publish a full")
    if deltas[-1].to_sequence != head.id.sequence:
        raise DeltaError(f"{deltas[-1]} does not lead to version {head.id}. run: springtide versions")
