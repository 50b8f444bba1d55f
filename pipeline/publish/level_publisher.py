"""Publishes incrementals and fulls as files: when they are due, or on command.

Files are written first, then announced, then recorded in the ledger. After a crash a second attempt writes the same
files, and announces them again rather than not at all.
Incrementals never cross a rollback: the first file of a new generation is a full.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from pipeline.configuration.project import Project
from pipeline.errors import VersionError
from pipeline.logs.interface.log import Log
from pipeline.process.crash_point import reach_crash_point
from pipeline.publish.hooks import VERSION_PUBLISHED, Hooks
from pipeline.publish.levels import ServedVersion, full_delta, merge_deltas
from pipeline.publish.measurement import measure_publication
from pipeline.versions.deltas.delta import Delta, Level, decode_delta, encode_delta
from pipeline.versions.deltas.published_files import DeltaManifest, delta_manifest, write_published
from pipeline.versions.deltas.served_view import ServedView, build_served_view
from pipeline.versions.store.superseded_files import drop_superseded
from pipeline.versions.store.version_store import VersionStore


class LevelPublisher:
    """Publishes and announces the files of one shard. Not thread-safe."""

    def __init__(self, project: Project, versions: VersionStore, hooks: Hooks, shard: int) -> None:
        self._project, self._versions, self._hooks, self._shard = project, versions, hooks, shard

    def announce_realtime(self, delta: Delta, encoded: bytes) -> None:
        """Announce a commit whose delta is in the topic."""
        self._announce(delta, delta_manifest(delta, encoded, file=""))

    def publish_full(self, views: Mapping[str, ServedView] | None = None) -> DeltaManifest | None:
        """Publish CURRENT as a full; returns None if there is no version yet.

        Args:
            views: by field, what serving holds at CURRENT; by default it is read from the store.
        """
        version = self._current(views)
        return self._write(full_delta(version)) if version else None

    def publish_incremental(self, views: Mapping[str, ServedView] | None = None) -> DeltaManifest | None:
        """Publish what changed since the latest published file; returns None if nothing did.

        In a generation without a file, and if a delta in between was dropped, this publishes a full.
        """
        version = self._current(views)
        if version is None or self._published_sequence(version.delta) == version.delta.to_sequence:
            return None
        deltas = self._deltas_since_published(version.delta)
        return self._write(merge_deltas(deltas, version) if deltas else full_delta(version))

    def publish_due(self, log_ms: int, views: Mapping[str, ServedView] | None = None) -> list[DeltaManifest]:
        """Publish the level that is due at the log's time `log_ms`, if any. A trainer calls this after each commit.

        A level is due when its period has passed since the last event of its latest file; a full also counts as an
        incremental.
        """
        policy = self._project.config.publish
        if self._is_due(("full",), policy.full_every_s, log_ms):
            manifest = self.publish_full(views)
        elif self._is_due(("full", "incremental"), policy.incremental_every_s, log_ms):
            manifest = self.publish_incremental(views)
        else:
            manifest = None
        return [manifest] if manifest else []

    def _is_due(self, levels: Sequence[str], every_s: float | None, log_ms: int) -> bool:
        """Whether `every_s` has passed since the latest file of `levels`."""
        if every_s is None:
            return False
        published_at_ms = [at_ms for level in levels if (at_ms := self._published_at_ms(level)) is not None]
        if not published_at_ms:
            return self._versions.current(self._shard) is not None
        return log_ms - max(published_at_ms) >= every_s * 1000

    def _published_at_ms(self, level: str) -> int | None:
        """The latest event time in the latest file of a level; None without a file, or if its version was dropped.

        A version may have been dropped because after a rollback an earlier file is the latest again.
        """
        pointer = self._versions.ledger.published.latest(level, self._shard)
        try:
            return self._versions.ledger.version(pointer.id).last_at_ms if pointer else None
        except VersionError:
            return None

    def _current(self, views: Mapping[str, ServedView] | None) -> ServedVersion | None:
        current = self._versions.current(self._shard)
        if current is None:
            return None
        if views is None:
            views = {name: build_served_view(entries) for name, entries in self._versions.served(current).items()}
        return ServedVersion(decode_delta(self._versions.delta(current)), views)

    def _published_sequence(self, current: Delta) -> int | None:
        """The latest sequence published as a file in CURRENT's generation."""
        pointers = [self._versions.ledger.published.latest(level, self._shard) for level in ("full", "incremental")]
        sequences = [p.id.sequence for p in pointers if p and p.id.generation == current.generation]
        return max(sequences, default=None)

    def _deltas_since_published(self, current: Delta) -> list[Delta]:
        """The deltas from the latest published file to CURRENT; empty if some were dropped or they cross a rollback."""
        since = self._published_sequence(current)
        if since is None and current.generation > 0:
            return []
        lineage = self._versions.lineage(self._shard)
        ids = [v.id for v in lineage if v.id.generation == current.generation and v.id.sequence > (since or 0)]
        deltas = [decode_delta(self._versions.delta(id)) for id in ids]
        starts = [since or 0, *(d.to_sequence for d in deltas[:-1])]
        complete = all(d.level == "realtime" and d.from_sequence == s for d, s in zip(deltas, starts, strict=True))
        return deltas if complete else []

    def _write(self, delta: Delta) -> DeltaManifest:
        project, encoded, id = self._project, encode_delta(delta), delta.to_version
        with measure_publication(delta, len(encoded), project.clock):
            manifest = write_published(project.published, delta, encoded)
        reach_crash_point("publish.after_files")
        self._announce(delta, manifest)
        reach_crash_point("publish.after_notice")
        self._versions.ledger.published.set(delta.level, id, f"{id.folder}/{manifest.file}")
        if delta.level == "full":
            drop_superseded(project.published, self._versions.ledger, id.shard, id.shards)
        return manifest

    def _announce(self, delta: Delta, manifest: DeltaManifest) -> None:
        self._hooks.announce(VERSION_PUBLISHED, f"{delta.to_version}/{delta.level}", notice_data(manifest))


def publish_level(project: Project, log: Log, versions: VersionStore, shard: int, level: Level) -> DeltaManifest | None:
    """Publish one shard's CURRENT as `incremental` or `full`; returns None if there is nothing to publish."""
    with closing(Hooks(project, log)) as hooks:
        publisher = LevelPublisher(project, versions, hooks, shard)
        return publisher.publish_full() if level == "full" else publisher.publish_incremental()


def notice_data(manifest: DeltaManifest) -> dict[str, Any]:
    """The data of a notice about a published delta; `file` is empty for a realtime delta."""
    return {name: value for name, value in asdict(manifest).items() if name not in ("format", "first_at_ms")}
