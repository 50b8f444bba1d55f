"""The path of each click: when its sample was emitted, learned and served, from the logs and the ledger.

All times are seconds of CLOCK_MONOTONIC; wall-clock times of the broker and the ledger are converted to it.
"""

import json
import time
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.configuration.project import Project
from pipeline.features.plan import FeaturePlan
from pipeline.logs.events.dead_letters import read_dead_letters
from pipeline.logs.events.sample_block import decode_sample_block
from pipeline.logs.interface.log import Log, Record, read_to_end
from pipeline.versions.state import VersionId, VersionSummary
from pipeline.versions.store.version_store import VersionStore
from tests.benchmarks.load.watched import Seen

Keys = dict[str, npt.NDArray[np.uint64]]


@dataclass(frozen=True)
class ClickPath:
    """The path of one click: seconds from its append to Kafka until each stage was reached; NaN if it was not.

    Attributes:
        emitted: its sample was appended.
        learned: CURRENT moved to a version that learned it.
        visible: the replica served that version or a later one.
        sent: share of its rows that the version sent to serving.
    """

    emitted: float
    learned: float
    visible: float
    sent: float


class ClickPaths:
    """Finds the paths of clicks in the samples log and the ledger."""

    def __init__(self, project: Project, log: Log, seen: Seen) -> None:
        self._project, self._log, self._seen = project, log, seen
        self._store = VersionStore(project)
        self._plan = FeaturePlan(project.config, project.root)
        self._wall_s = time.time() - time.monotonic()

    def of(self, produced: dict[int, float]) -> dict[int, ClickPath]:
        """The paths of the clicks that have a sample, by click id."""
        paths: dict[int, ClickPath] = {}
        for shard in range(self._project.config.logs.shards):
            lineage = _Lineage(self._store, self._seen, shard, self._wall_s)
            for records in read_to_end(self._log, self._project.config.topics.samples, shard):
                for record in records:
                    paths |= self._of_record(record, lineage, produced)
        self._store.close()
        return paths

    def _of_record(self, record: Record, lineage: "_Lineage", produced: dict[int, float]) -> dict[int, ClickPath]:
        samples = decode_sample_block(record.value).batch
        clicked = samples.column("click_at").is_valid().to_numpy(zero_copy_only=False)
        ids = samples.column("id").to_numpy()
        rows = [row for row in np.flatnonzero(clicked).tolist() if int(ids[row]) in produced]
        if not rows:
            return {}
        keys = self._plan.extract(samples, samples.column("impression_at").to_numpy()).keys
        emitted_s = record.appended_at_ms / 1000 - self._wall_s
        found = {}
        for row in rows:
            own = {name: of.keys[of.offsets[row] : of.offsets[row + 1]] for name, of in keys.items()}
            learned_s, visible_s, sent = lineage.learned(record.offset, row, own)
            at_s = produced[int(ids[row])]
            found[int(ids[row])] = ClickPath(emitted_s - at_s, learned_s - at_s, visible_s - at_s, sent)
        return found


class _Lineage:
    """A shard's versions: where each ends in the log, when it was committed and served, and which rows it sent."""

    def __init__(self, store: VersionStore, seen: Seen, shard: int, wall_s: float) -> None:
        self._store, self._wall_s = store, wall_s
        self._versions: list[VersionSummary] = store.lineage(shard)
        self._ends = [(version.offset, version.row) for version in self._versions]
        shown = [(_sequence(name, shard), at_s) for name, at_s in seen]
        self._shown = np.array([sequence for sequence, _ in shown], np.int64)
        self._shown_s = np.array([at_s for _, at_s in shown])
        self._touched: dict[VersionId, Keys] = {}

    def learned(self, offset: int, row: int, own: Keys) -> tuple[float, float, float]:
        """(when learned, when visible, share of the rows `own` that were sent) of the sample at this position."""
        at = bisect_right(self._ends, (offset, row))
        if at == len(self._ends):
            return np.nan, np.nan, np.nan
        version = self._versions[at]
        shown = int(np.searchsorted(self._shown, version.id.sequence))
        visible_s = float(self._shown_s[shown]) if shown < len(self._shown) else np.nan
        return version.committed_at_ms / 1000 - self._wall_s, visible_s, self._sent(version, own)

    def _sent(self, version: VersionSummary, own: Keys) -> float:
        if version.parent is None:
            return 1.0
        if version.id not in self._touched:
            self._touched[version.id] = self._store.touched(version.parent, version.id)
        touched = self._touched[version.id]
        sent = [np.isin(keys, touched[name], kind="sort") for name, keys in own.items() if len(keys)]
        return float(np.concatenate(sent).mean())


def _sequence(versions: str, shard: int) -> int:
    """The number of one shard's version in the replica's version name: `g0/s0-of-2/42+g0/s1-of-2/7`."""
    return VersionId.parse(versions.split("+")[shard]).sequence


def dead_lettered_clicks(project: Project, log: Log) -> set[int]:
    """Ids of the clicks in the dead letters."""
    topics, found = project.config.topics, set[int]()
    for shard in range(project.config.logs.shards):
        for records in read_to_end(log, topics.dead_letters, shard):
            letters = read_dead_letters(records).table.to_pylist()
            found |= {json.loads(row["original"])["id"] for row in letters if row["topic"] == topics.clicks}
    return found
