"""Follows one shard's deltas: reads its partition of the topic, heals from published files, counts what it refuses.

A refused delta never stops it: it stays at the last good version, keeps the place of the first one that did not fit,
and goes back there once files, a late delta or a reverse delta have brought it further.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from pipeline.configuration.project import Project
from pipeline.errors import DamagedError, DeltaError, ModelError, OffsetError, SpringtideError
from pipeline.logs.log import Log, ReadLimits, Record
from pipeline.serving.chain import Chain, Fit, Step
from pipeline.telemetry import metrics
from pipeline.versions.deltas.delta import Delta, decode_delta, delta_name
from pipeline.versions.deltas.published import DeltaManifest, delta_manifest_paths, read_delta_manifest, read_published

_READ_RECORDS = 256

_talk = structlog.get_logger(__name__)


class Follower:
    """Not thread-safe: one thread calls `catch_up`."""

    def __init__(self, project: Project, log: Log, chain: Chain, switch: Callable[[Chain, Step], None]) -> None:
        """Follow `chain.shard`; `switch` carries a verified step out while readers are kept away."""
        self.chain = chain
        self._log, self._topic, self._folder = log, project.config.topics.deltas, project.published
        self._switch, self._clock = switch, project.clock
        self._offset: int | None = None
        self._replay_until = 0
        self._gap_at: int | None = None
        self._look_for_files = False
        self._counted_until = -1
        self._bad_files: dict[Path, int] = {}
        self._refused: Counter[str] = Counter()
        self._problem: str | None = None

    def catch_up(self, wait_ms: int = 0) -> int:
        """Apply what is there, waiting `wait_ms` for it at most; returns how many deltas and files were applied."""
        applied = self._start() if self._offset is None else 0
        applied += self._read_on(wait_ms)
        while (self._gap_at is not None or self._look_for_files) and (healed := self._heal()):
            self._go_back()
            applied += healed + self._read_on()
        self._look_for_files = False
        return applied

    def status(self, end: int | None) -> dict[str, Any]:
        """JSON-able; `end` is where the topic ended a moment ago, None where that is not known."""
        chain = self.chain
        return {
            "shard": chain.shard,
            "version": str(chain),
            "generation": chain.generation,
            "sequence": chain.sequence,
            "last_at_ms": chain.last_at_ms,
            "digest": chain.digest,
            "offset": self._offset,
            "lag_records": None if end is None else max(0, end - (self._offset or 0)),
            "waiting_for_gap": self._gap_at is not None,
            "rows": {name: len(view) for name, view in chain.views.items()},
            "payload_bytes": {name: view.payload_total for name, view in chain.views.items()},
            "refused": dict(self._refused),
            "problem": self._problem,
        }

    def _start(self) -> int:
        """The newest full and what follows it in files; then the topic from its beginning, skipping what is known."""
        applied = self._heal()
        self._offset = self._log.begin_offset(self._topic, self.chain.shard)
        self._replay_until = self._log.end_offset(self._topic, self.chain.shard)
        return applied

    def _read_on(self, wait_ms: int = 0) -> int:
        """Read to the end of the topic."""
        applied = 0
        while records := self._read(0 if applied else wait_ms):
            for record in records:
                self._offset = record.offset + 1
                if self._meet(record):
                    applied += 1
                    if self._gap_at is not None:
                        self._go_back()
                        break
        return applied

    def _read(self, wait_ms: int) -> list[Record]:
        assert self._offset is not None
        limits = ReadLimits(_READ_RECORDS, wait_ms=wait_ms)
        try:
            return self._log.read(self._topic, self.chain.shard, self._offset, limits)
        except OffsetError as failure:
            self._refuse("offset", self._offset, failure)
            self._offset = self._log.begin_offset(self._topic, self.chain.shard)
            self._gap_at = self._offset
            return []

    def _meet(self, record: Record) -> bool:
        """Judge one record; true where it was applied."""
        if record.offset < self._replay_until and self._behind(record):
            return False
        try:
            delta, name = decode_delta(record.value), delta_name(record.value)
            fit = self.chain.fit(delta, name)
            if fit is Fit.APPLY:
                self._apply(delta, name)
                self._note_freshness(delta, record)
        except (DamagedError, DeltaError, ModelError) as failure:
            self._refuse("damaged" if isinstance(failure, DamagedError) else "unfit", record.offset, failure)
            return False
        if fit is Fit.GAP:
            self._gap_at = record.offset if self._gap_at is None else self._gap_at
            self._refuse("gap", record.offset, DeltaError(f"{delta} does not follow version {self.chain}"))
        return fit is Fit.APPLY

    def _behind(self, record: Record) -> bool:
        """Whether a record of the past, read again at a start, leads no further than what the files gave."""
        place = record.headers.get("generation"), record.headers.get("sequence")
        if place[0] is None or place[1] is None:
            return False
        return (int(place[0]), int(place[1])) <= (self.chain.generation, self.chain.sequence)

    def _apply(self, delta: Delta, name: str) -> None:
        self._switch(self.chain, self.chain.verify(delta, name))
        self._problem = None

    def _note_freshness(self, delta: Delta, record: Record) -> None:
        """How old is what serving shows from now on; what was there before this replica says nothing of that."""
        if delta.level == "realtime" and record.offset >= self._replay_until:
            shard, now_ms = str(self.chain.shard), self._clock.now_ms()
            metrics.COMMIT_VISIBLE.labels(shard).observe((now_ms - record.appended_at_ms) / 1000)
            metrics.FRESHNESS.labels(shard).observe((now_ms - delta.last_at_ms) / 1000)

    def _go_back(self) -> None:
        if self._gap_at is not None:
            self._offset, self._gap_at = self._gap_at, None

    def _heal(self) -> int:
        """Apply published files as long as one leads further; returns how many."""
        applied = 0
        while any(self._apply_file(path, manifest) for path, manifest in self._candidates()):
            applied += 1
        return applied

    def _candidates(self) -> list[tuple[Path, DeltaManifest]]:
        """Files that apply to the version held, the furthest first, the smaller of two that reach as far."""
        found = []
        for path in delta_manifest_paths(self._folder, self.chain.shard, self.chain.shards):
            if path in self._bad_files and self._bad_files[path] == _written_at_ns(path):
                continue
            try:
                manifest = read_delta_manifest(path)
            except FileNotFoundError:
                continue  # dropped since it was listed: newer files lead further
            except DamagedError as failure:
                self._refuse_file(path, failure)
                continue
            if self._leads_on(manifest):
                found.append((path, manifest))
        return sorted(found, key=lambda f: (-f[1].generation, -f[1].to_sequence, f[1].size_bytes))

    def _leads_on(self, manifest: DeltaManifest) -> bool:
        held = (self.chain.generation, self.chain.sequence)
        if (manifest.generation, manifest.to_sequence) <= held:
            return False
        if manifest.level == "full":
            return True
        return manifest.base_generation == held[0] and manifest.from_sequence <= held[1]

    def _apply_file(self, path: Path, manifest: DeltaManifest) -> bool:
        try:
            delta, encoded = read_published(path, manifest)
            if self.chain.fit(delta, delta_name(encoded)) is not Fit.APPLY:
                return False
            self._apply(delta, delta_name(encoded))
        except (DamagedError, DeltaError, ModelError) as failure:
            self._refuse_file(path, failure)
            return False
        return True

    def _refuse_file(self, path: Path, failure: SpringtideError) -> None:
        """Count and show a file that was refused, until it is written again; one that is gone by now was dropped."""
        written_at_ns = _written_at_ns(path)
        if written_at_ns is not None:
            self._bad_files[path] = written_at_ns
            self._note("file", str(failure), path=str(path))

    def _refuse(self, kind: str, offset: int, failure: SpringtideError) -> None:
        """Count and show a record that was refused, once however often it is read."""
        if offset > self._counted_until:
            self._counted_until, self._look_for_files = offset, True
            self._note(kind, f"{self._topic}, partition {self.chain.shard}, offset {offset}: {failure}")

    def _note(self, kind: str, problem: str, **where: str) -> None:
        self._refused[kind] += 1
        self._problem = problem
        _talk.warning("delta refused", kind=kind, problem=problem, version=str(self.chain), **where)


def _written_at_ns(path: Path) -> int | None:
    """When a file was written; None where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
