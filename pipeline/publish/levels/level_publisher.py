"""Publishes incrementals and fulls as files: when they are due, or on command.

Files are written first, then announced, then recorded in the ledger. After a crash a second attempt writes the same
files, and announces them again rather than not at all.
Incrementals never cross a rollback: the first file of a new generation is a full. A full carries what serving holds;
with `full_rows = "every"` the delta of its version has sent what was withheld before. So every path to the version
gives the same bytes.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Any

from pipeline.configuration.project import Project
from pipeline.logs.interface.log import Log
from pipeline.process.crash_point import reach_crash_point
from pipeline.publish.hooks.notices import VERSION_PUBLISHED, Hooks
from pipeline.publish.levels.level_deltas import ServedVersion, full_delta, merge_deltas
from pipeline.publish.levels.part import Part, cut_to_part
from pipeline.publish.levels.schedule import PublishSchedule
from pipeline.publish.measurement import measure_publication
from pipeline.versions.deltas.delta import Delta, Level, encode_delta
from pipeline.versions.deltas.published_files import (
    DeltaManifest,
    delta_manifest,
    published_folder,
    read_published,
    write_published,
)
from pipeline.versions.deltas.served_view import ServedView, build_served_view
from pipeline.versions.store.superseded_files import drop_superseded
from pipeline.versions.store.version_store import VersionStore


class LevelPublisher:
    """Publishes and announces the files of one shard. Not thread-safe."""

    def __init__(
        self, project: Project, versions: VersionStore, hooks: Hooks, shard: int, part: Part | None = None
    ) -> None:
        """Publish the whole model, or one part of it."""
        self._project, self._versions, self._hooks, self._shard, self._part = project, versions, hooks, shard, part
        self._place = None if part is None else part.place
        self.schedule = PublishSchedule(project.config.publish, versions, shard, self._place)

    def announce_realtime(self, delta: Delta, encoded: bytes) -> DeltaManifest:
        """Announce a commit whose delta is in the topic."""
        quality = self._versions.quality(delta.to_version)
        manifest = delta_manifest(delta, encoded, file="", quality=quality)
        self._announce(delta, manifest)
        return manifest

    def publish_full(self, views: Mapping[str, ServedView] | None = None) -> DeltaManifest | None:
        """Publish CURRENT as a full; returns None if there is no version yet.

        Args:
            views: by table, what serving holds at CURRENT; by default it is read from the store.
        """
        version = self._current(views)
        return self._write(full_delta(version)) if version else None

    def publish_part_of(self, whole: DeltaManifest) -> DeltaManifest:
        """Publish the part from a published file of the whole model. Raises DamagedError."""
        return self._write(read_published(self._project.published / f"{whole.place}.json", whole)[0])

    def publish_incremental(self, views: Mapping[str, ServedView] | None = None) -> DeltaManifest | None:
        """Publish what changed since the latest published file; returns None if nothing did.

        In a generation without a file, and if a delta in between was dropped, this publishes a full.
        """
        version = self._current(views)
        if version is None:
            return None
        id = version.delta.to_version
        if self.schedule.published_sequence(id) == id.sequence:
            return None
        deltas = self.schedule.deltas_since_published(id)
        return self._write(merge_deltas(deltas, version) if deltas else full_delta(version))

    def publish_due(
        self, log_ms: int, views: Mapping[str, ServedView] | None = None, complete: bool = True
    ) -> list[DeltaManifest]:
        """Publish the level that is due at the log's time `log_ms`, if any. A trainer calls this after each commit.

        A level is due when its period has passed since the last event of its latest file; a full also counts as an
        incremental. While serving does not hold every row that a full has to carry (`complete` is false), no full is
        published.
        """
        manifest = None
        if complete and self.schedule.full_due_by_time(log_ms):
            manifest = self.publish_full(views)
        elif self.schedule.incremental_due_by_time(log_ms) and (complete or not self.schedule.needs_full()):
            manifest = self.publish_incremental(views)
        return [manifest] if manifest else []

    def _current(self, views: Mapping[str, ServedView] | None) -> ServedVersion | None:
        current = self._versions.current(self._shard)
        if current is None:
            return None
        if views is None:
            views = {name: build_served_view(entries) for name, entries in self._versions.served(current).items()}
        return ServedVersion(self._versions.complete_delta(current), views)

    def _write(self, delta: Delta) -> DeltaManifest:
        project, id = self._project, delta.to_version
        delta = delta if self._part is None else cut_to_part(delta, self._part)
        encoded, folder = encode_delta(delta), published_folder(project.published, self._place)
        with measure_publication(delta, len(encoded), project.clock):
            manifest = write_published(folder, delta, encoded, self._versions.quality(id))
        reach_crash_point("publish.after_files")
        self._announce(delta, manifest)
        reach_crash_point("publish.after_notice")
        path = (folder / f"{id.folder}/{manifest.file}").name.removeprefix(f"{project.published.path}/")
        self._versions.ledger.published.set(self.schedule.pointer_level(delta.level), id, path)
        if delta.level == "full":
            drop_superseded(project.published, self._versions.ledger, id.shard, id.shards, self._place)
        return manifest

    def _announce(self, delta: Delta, manifest: DeltaManifest) -> None:
        subject = "/".join(filter(None, (str(delta.to_version), delta.level, delta.part)))
        self._hooks.announce(VERSION_PUBLISHED, subject, notice_data(manifest))


def publish_level(
    project: Project, log: Log, versions: VersionStore, shard: int, level: Level, part: Part | None = None
) -> DeltaManifest | None:
    """Publish one shard's CURRENT, or a part, as `incremental` or `full`; None if there is nothing to publish.

    A full holds what serving holds; `full_on_command.py` of the trainer sends everything else first.
    """
    with closing(Hooks(project, log)) as hooks:
        publisher = LevelPublisher(project, versions, hooks, shard, part)
        return publisher.publish_full() if level == "full" else publisher.publish_incremental()


def notice_data(manifest: DeltaManifest) -> dict[str, Any]:
    """The data of a notice about a published delta; `file` is empty for a realtime delta."""
    return {name: value for name, value in asdict(manifest).items() if name not in ("format", "first_at_ms")}
