"""What publishing cost: bytes by level and rows by precision, beside sending every changed row whole.

The comparison takes the same interval: rows that training changed in it, each once, as key, a byte, and fp32 weights
(design, numbers to reach), and the same dense weights.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.block import UInt64s
from pipeline.configuration.project import Project
from pipeline.market.market import HOUR_MS
from pipeline.versions.deltas.delta import Delta, decode_delta
from pipeline.versions.deltas.published import delta_manifests, read_published
from pipeline.versions.deltas.quantizer import PRECISIONS
from pipeline.versions.files import read_commit
from pipeline.versions.state import Commit, VersionId, VersionSummary
from pipeline.versions.store import VersionStore

_ROW_OVERHEAD_BYTES = 9  # the key and one byte


@dataclass
class Level:
    """One level of publishing.

    Attributes:
        deltas: how many.
        sent_bytes: what they weigh.
        whole_bytes: what the same rows would weigh in fp32.
    """

    deltas: int = 0
    sent_bytes: int = 0
    whole_bytes: int = 0

    def add(self, sent_bytes: int, whole_bytes: int) -> None:
        self.deltas, self.sent_bytes = self.deltas + 1, self.sent_bytes + sent_bytes
        self.whole_bytes += whole_bytes


class Traffic:
    """Adds up what one shard publishes; read it after every round, before retention thins versions. Not thread-safe."""

    def __init__(self, project: Project, start_at_ms: int) -> None:
        """Read `project`'s versions and files; the market's first hour begins at `start_at_ms`."""
        self._project, self._store, self._start_at_ms = project, VersionStore(project), start_at_ms
        self._dims = {field.name: field.dim for field in project.config.fields}
        self._seen: set[VersionId] = set()
        self._touched: dict[VersionId, Mapping[str, UInt64s]] = {}
        self.levels = {name: Level() for name in ("realtime", "incremental", "full")}
        self.mix: dict[int, Counter[str]] = {}
        """By hour of the newest sample learned: rows `withheld`, and rows sent by their bits."""
        self._files: set[str] = set()

    def read(self) -> None:
        """Take in the versions and files that came since the last call; a rollback's reverse delta is not counted."""
        for version in self._store.lineage(0):
            if version.id not in self._seen:
                self._seen.add(version.id)
                hour = (version.last_at_ms - self._start_at_ms) // HOUR_MS
                self._take_version(version, self.mix.setdefault(hour, Counter()))
        for path, manifest in delta_manifests(self._project.published, 0, 1):
            if manifest.level in self.levels and str(path) not in self._files:
                self._files.add(str(path))
                self._take_file(read_published(path, manifest)[0], manifest.size_bytes)

    def close(self) -> None:
        self._store.close()

    def _take_version(self, version: VersionSummary, mix: Counter[str]) -> None:
        commit = read_commit(self._store.folder / version.path)
        delta = decode_delta(commit.delta)
        if delta.level != "realtime":
            return
        touched = self._changed_rows(commit)
        self._touched[version.id] = touched
        self.levels["realtime"].add(len(commit.delta), self._whole(_counts(touched), delta))
        for name, change in commit.fields.items():
            sent = change.served_keys if change.served_touched is None else change.served_touched
            mix["withheld"] += int(np.count_nonzero(~np.isin(touched[name], sent)))
        for bits in PRECISIONS:
            mix[str(bits)] += sum(int(np.count_nonzero(field.bits == bits)) for field in delta.fields.values())

    def _changed_rows(self, commit: Commit) -> Mapping[str, UInt64s]:
        """By field, the keys whose row is not what it was; a version written whole is compared with its parent."""
        if not commit.full or commit.parent is None:
            return {name: change.keys for name, change in commit.fields.items()}
        before = self._store.restore(commit.parent).fields
        found = {}
        for name, change in commit.fields.items():
            old = before[name]
            place = np.minimum(np.searchsorted(old.keys, change.keys), max(len(old.keys) - 1, 0))
            same = (old.keys[place] == change.keys) if len(old.keys) else np.zeros(len(change.keys), np.bool_)
            same[same] = (old.rows[place[same]] == change.rows[same]).all(axis=1)
            found[name] = change.keys[~same]
        return found

    def _take_file(self, delta: Delta, size_bytes: int) -> None:
        if delta.level == "full":
            counts = {name: len(field) for name, field in delta.fields.items()}
        else:
            counts = _counts(self._net(delta))
        self.levels[delta.level].add(size_bytes, self._whole(counts, delta))

    def _net(self, delta: Delta) -> dict[str, UInt64s]:
        """By field, the keys changed in a delta's interval, each once."""
        inside = [
            touched
            for id, touched in self._touched.items()
            if id.generation == delta.generation and delta.from_sequence < id.sequence <= delta.to_sequence
        ]
        return {name: _union(touched[name] for touched in inside) for name in self._dims}

    def _whole(self, counts: Mapping[str, int], delta: Delta) -> int:
        rows = sum(count * (_ROW_OVERHEAD_BYTES + 4 * self._dims[name]) for name, count in counts.items())
        return rows + len(delta.dense)


def _counts(touched: Mapping[str, UInt64s]) -> dict[str, int]:
    return {name: len(keys) for name, keys in touched.items()}


def _union(parts: Iterable[UInt64s]) -> UInt64s:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))
