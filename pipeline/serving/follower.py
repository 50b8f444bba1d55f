"""Follows the deltas of one shard: reads its partition of the deltas topic and closes gaps from published files.

A refused delta is counted and reported and never stops the follower: the shard keeps its last good version. The offset
of the first delta that did not follow it is saved and read again once a file or a delta has advanced the shard.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, DeltaError, ModelError, OffsetError, SpringtideError
from pipeline.files.interface import StoredFile
from pipeline.logs.interface.log import Log, ReadLimits, Record
from pipeline.serving.served_shard import DeltaStatus, ServedShard
from pipeline.serving.staged_delta import StagedDelta
from pipeline.telemetry import metrics
from pipeline.versions.deltas.delta import Delta, decode_delta, delta_name
from pipeline.versions.deltas.delta_version import DeltaVersion, version_in_headers
from pipeline.versions.deltas.published_files import (
    DeltaManifest,
    delta_manifest_files,
    published_folder,
    read_delta_manifest,
    read_published,
)
from pipeline.versions.deltas.row_bounds import RowBounds

_READ_RECORDS = 256

logger = structlog.get_logger(__name__)


class Follower:
    """Not thread-safe: one thread calls `catch_up`."""

    def __init__(
        self, project: Project, log: Log, served: ServedShard, switch: Callable[[ServedShard, StagedDelta], None]
    ) -> None:
        """Follow the deltas of `served`; `switch` applies a staged delta while readers are kept out."""
        self.served = served
        self._log, self._topic = log, project.config.topics.deltas
        self._bounds = RowBounds(max_bytes=project.config.serving.max_delta_bytes)
        places = (None,) if served.part is None else (None, project.config.part(served.part).place)
        self._folders = [published_folder(project.published, place) for place in places]
        self._switch, self._clock = switch, project.clock
        self._offset: int | None = None
        self._history_end = 0
        self._gap_offset: int | None = None
        self._files_due = False
        self._refused_offset = -1
        self._refused_files: dict[StoredFile, int] = {}
        self._refused: Counter[str] = Counter()
        self._problem: str | None = None

    def catch_up(self, wait_ms: int = 0) -> int:
        """Apply what is available, waiting at most `wait_ms` for it; returns the number of deltas and files applied."""
        applied = self._start() if self._offset is None else 0
        applied += self._read_topic(wait_ms)
        while (self._gap_offset is not None or self._files_due) and (from_files := self._apply_files()):
            self._rewind_to_gap()
            applied += from_files + self._read_topic()
        self._files_due = False
        return applied

    def status(self, end_offset: int | None) -> dict[str, Any]:
        """JSON-able; `end_offset` is the last known end of the partition, None if it is unknown."""
        served = self.served
        return {
            "shard": served.shard,
            "version": str(served),
            "generation": served.generation,
            "sequence": served.sequence,
            "last_at_ms": served.last_at_ms,
            "digest": served.digest,
            "offset": self._offset,
            "lag_records": None if end_offset is None else max(0, end_offset - (self._offset or 0)),
            "waiting_for_gap": self._gap_offset is not None,
            "rows": {name: len(view) for name, view in served.views.items()},
            "payload_bytes": {name: view.payload_total for name, view in served.views.items()},
            "refused": dict(self._refused),
            "problem": self._problem,
        }

    def _start(self) -> int:
        """Apply the latest full and the files after it; the topic is then read from its beginning."""
        applied = self._apply_files()
        self._offset = self._log.begin_offset(self._topic, self.served.shard)
        self._history_end = self._log.end_offset(self._topic, self.served.shard)
        return applied

    def _read_topic(self, wait_ms: int = 0) -> int:
        """Read to the end of the partition; returns the number of deltas applied."""
        applied = 0
        while records := self._read(0 if applied else wait_ms):
            for record in records:
                self._offset = record.offset + 1
                if self._process(record):
                    applied += 1
                    if self._gap_offset is not None:
                        self._rewind_to_gap()
                        break
        return applied

    def _read(self, wait_ms: int) -> list[Record]:
        assert self._offset is not None
        limits = ReadLimits(_READ_RECORDS, wait_ms=wait_ms)
        try:
            return self._log.read(self._topic, self.served.shard, self._offset, limits)
        except OffsetError as failure:
            self._refuse("offset", self._offset, failure)
            self._offset = self._log.begin_offset(self._topic, self.served.shard)
            self._gap_offset = self._offset
            return []

    def _process(self, record: Record) -> bool:
        """Apply, skip or refuse one record; returns whether it was applied."""
        if record.offset < self._history_end and self._covers(record):
            return False
        try:
            delta, name = decode_delta(record.value, self._bounds), delta_name(record.value)
            status = self.served.check(delta, name)
            if status is DeltaStatus.APPLICABLE:
                self._apply(delta, name)
                self._observe_freshness(delta, record)
        except (DamagedError, DeltaError, ModelError) as failure:
            self._refuse("damaged" if isinstance(failure, DamagedError) else "unfit", record.offset, failure)
            return False
        if status is DeltaStatus.GAP:
            self._gap_offset = record.offset if self._gap_offset is None else self._gap_offset
            self._refuse("gap", record.offset, DeltaError(f"{delta} does not follow version {self.served}"))
        return status is DeltaStatus.APPLICABLE

    def _covers(self, record: Record) -> bool:
        """Whether the served version is later than the record's delta, by its headers; False without numbers in them.

        The delta of exactly the served version is decoded: its digest shows a published file of another model.
        """
        version = version_in_headers(record)
        return version is not None and version < DeltaVersion(self.served.generation, self.served.sequence)

    def _apply(self, delta: Delta, name: str) -> None:
        self._switch(self.served, self.served.stage(delta, name))
        self._problem = None

    def _observe_freshness(self, delta: Delta, record: Record) -> None:
        """Record the age of a realtime delta, unless it was in the topic before this replica started."""
        if delta.level == "realtime" and record.offset >= self._history_end:
            shard, now_ms = str(self.served.shard), self._clock.now_ms()
            metrics.COMMIT_VISIBLE.labels(shard).observe((now_ms - record.appended_at_ms) / 1000)
            metrics.FRESHNESS.labels(shard).observe((now_ms - delta.last_at_ms) / 1000)

    def _rewind_to_gap(self) -> None:
        if self._gap_offset is not None:
            self._offset, self._gap_offset = self._gap_offset, None

    def _apply_files(self) -> int:
        """Apply published files until none advances the shard; returns the number applied."""
        applied = 0
        while any(self._apply_file(file, manifest) for file, manifest in self._applicable_files()):
            applied += 1
        return applied

    def _applicable_files(self) -> list[tuple[StoredFile, DeltaManifest]]:
        """Files that apply to the served version: latest version first, then smallest file first."""
        applicable = []
        shard, shards = self.served.shard, self.served.shards
        for file in (file for folder in self._folders for file in delta_manifest_files(folder, shard, shards)):
            if file in self._refused_files and self._refused_files[file] == _modified_at_ns(file):
                continue
            try:
                manifest = read_delta_manifest(file)
            except FileNotFoundError:
                continue  # retention removed it after the listing; later files replace it
            except DamagedError as failure:
                self._refuse_file(file, failure)
                continue
            if self._advances(manifest):
                applicable.append((file, manifest))
        return sorted(applicable, key=lambda f: (-f[1].generation, -f[1].to_sequence, f[1].size_bytes))

    def _advances(self, manifest: DeltaManifest) -> bool:
        """Whether a file applies to the served version and ends after it."""
        generation, sequence = self.served.generation, self.served.sequence
        if (manifest.generation, manifest.to_sequence) <= (generation, sequence):
            return False
        if manifest.level == "full":
            return True
        return manifest.base_generation == generation and manifest.from_sequence <= sequence

    def _apply_file(self, file: StoredFile, manifest: DeltaManifest) -> bool:
        try:
            delta, encoded = read_published(file, manifest)
            name = delta_name(encoded)
            if self.served.check(delta, name) is not DeltaStatus.APPLICABLE:
                return False
            self._apply(delta, name)
        except (DamagedError, DeltaError, ModelError) as failure:
            self._refuse_file(file, failure)
            return False
        return True

    def _refuse_file(self, file: StoredFile, failure: SpringtideError) -> None:
        """Skip a file until it is rewritten. A file that no longer exists was removed by retention: no refusal."""
        modified_at_ns = _modified_at_ns(file)
        if modified_at_ns is not None:
            self._refused_files[file] = modified_at_ns
            self._report_refusal("file", str(failure), path=str(file))

    def _refuse(self, kind: str, offset: int, failure: SpringtideError) -> None:
        """Count and report a refused record once, however often it is read."""
        if offset > self._refused_offset:
            self._refused_offset, self._files_due = offset, True
            self._report_refusal(kind, f"{self._topic}, partition {self.served.shard}, offset {offset}: {failure}")

    def _report_refusal(self, kind: str, problem: str, **context: str) -> None:
        self._refused[kind] += 1
        self._problem = problem
        logger.warning("delta refused", kind=kind, problem=problem, version=str(self.served), **context)


def _modified_at_ns(file: StoredFile) -> int | None:
    """When a file was put; None if it does not exist."""
    try:
        return file.describe().modified_at_ns
    except FileNotFoundError:
        return None
