"""Statistics of publishing: bytes by level and rows by precision, compared with sending all changed rows in fp32.

The comparison counts, for the interval of each delta, every row that training changed in it once, as key, one byte and
fp32 weights, plus the dense weights in fp32.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.block import UInt64s
from pipeline.configuration.model.tables import tables_of
from pipeline.configuration.project import Project
from pipeline.market.market import HOUR_MS
from pipeline.model.network.weights import serving_arrays, unpack
from pipeline.versions.deltas.delta import Delta, decode_delta
from pipeline.versions.deltas.published_files import delta_manifests, read_published
from pipeline.versions.deltas.quantizer import PRECISIONS
from pipeline.versions.state import VersionId, VersionSummary
from pipeline.versions.store.files import read_commit
from pipeline.versions.store.version_store import VersionStore

_ROW_OVERHEAD_BYTES = 9  # the key and one byte


@dataclass
class LevelStatistics:
    """Totals of one level.

    Attributes:
        deltas: number of deltas.
        sent_bytes: their size.
        fp32_bytes: size of the same changes with every changed row in fp32.
    """

    deltas: int = 0
    sent_bytes: int = 0
    fp32_bytes: int = 0

    def add(self, sent_bytes: int, fp32_bytes: int) -> None:
        self.deltas, self.sent_bytes = self.deltas + 1, self.sent_bytes + sent_bytes
        self.fp32_bytes += fp32_bytes


class PublishStatistics:
    """Totals of what shard 0 publishes. Not thread-safe."""

    def __init__(self, project: Project, start_at_ms: int) -> None:
        """Count the versions and files of `project`; the market's first hour begins at `start_at_ms`."""
        self._project, self._store, self._start_at_ms = project, VersionStore(project), start_at_ms
        self._dims = {name: table.dim for name, table in tables_of(project.config.fields).items()}
        self._seen: set[VersionId] = set()
        self._touched: dict[VersionId, Mapping[str, UInt64s]] = {}
        self.levels = {name: LevelStatistics() for name in ("realtime", "incremental", "full")}
        self.precisions: dict[int, Counter[str]] = {}
        """By hour of the latest sample learned: rows `withheld`, and rows sent by number of bits."""
        self._files: set[str] = set()

    def update(self) -> None:
        """Count the versions and files added since the last call, without reverse deltas.

        Call it after every training round, before retention removes versions.
        """
        for version in self._store.lineage(0):
            if version.id not in self._seen:
                self._seen.add(version.id)
                hour = (version.last_at_ms - self._start_at_ms) // HOUR_MS
                self._count_version(version, self.precisions.setdefault(hour, Counter()))
        for file, manifest in delta_manifests(self._project.published, 0, 1):
            if manifest.level in self.levels and file.name not in self._files:
                self._files.add(file.name)
                self._count_file(read_published(file, manifest)[0], manifest.size_bytes)

    def snapshot_fp32_bytes(self) -> int:
        """Size of all rows and dense weights of CURRENT in fp32."""
        current = self._store.current(0)
        assert current is not None, "nothing was published"
        commit = self._store.restore(current)
        return self._fp32_bytes({name: len(change.keys) for name, change in commit.fields.items()}, commit.dense)

    def close(self) -> None:
        self._store.close()

    def _count_version(self, version: VersionSummary, precisions: Counter[str]) -> None:
        commit = read_commit(self._store.folder / version.path)
        delta = decode_delta(commit.delta)
        if delta.level != "realtime":
            return
        touched = {name: change.keys for name, change in commit.fields.items()}
        self._touched[version.id] = touched
        self.levels["realtime"].add(len(commit.delta), self._fp32_bytes(_counts(touched), commit.dense))
        for name, change in commit.fields.items():
            precisions["withheld"] += int(np.count_nonzero(~np.isin(touched[name], change.served_keys)))
        for bits in PRECISIONS:
            precisions[str(bits)] += sum(int(np.count_nonzero(field.bits == bits)) for field in delta.fields.values())

    def _count_file(self, delta: Delta, size_bytes: int) -> None:
        if delta.level == "full":
            counts = {name: len(field) for name, field in delta.fields.items()}
        else:
            counts = _counts(self._changed_in(delta))
        assert isinstance(delta.dense, bytes), "files hold complete dense weights"
        self.levels[delta.level].add(size_bytes, self._fp32_bytes(counts, delta.dense))

    def _changed_in(self, delta: Delta) -> dict[str, UInt64s]:
        """By table, the keys changed in the interval of a delta, each once."""
        touched_inside = [
            touched
            for id, touched in self._touched.items()
            if id.generation == delta.generation and delta.from_sequence < id.sequence <= delta.to_sequence
        ]
        return {name: _union(touched[name] for touched in touched_inside) for name in self._dims}

    def _fp32_bytes(self, counts: Mapping[str, int], dense: bytes) -> int:
        rows = sum(count * (_ROW_OVERHEAD_BYTES + 4 * self._dims[name]) for name, count in counts.items())
        return rows + sum(array.nbytes for array in serving_arrays(unpack(dense)).values())


def _counts(touched: Mapping[str, UInt64s]) -> dict[str, int]:
    return {name: len(keys) for name, keys in touched.items()}


def _union(parts: Iterable[UInt64s]) -> UInt64s:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))
