"""A synthetic trainer for tests of publishing and serving: random row changes, real publisher, store and log."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.importance.row_statistics import STATISTICS_DTYPE
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.publish.hooks.notices import Hooks
from pipeline.publish.levels.level_publisher import LevelPublisher
from pipeline.publish.price.byte_price import Price
from pipeline.publish.price.dense_weights import TrainedWeights
from pipeline.publish.publisher import PreparedUpdate, Publisher, PublishSettings, TouchedRows, VersionRange
from pipeline.versions.deltas.rounding import RowRounding
from pipeline.versions.deltas.served_view import ServedView, build_served_view
from pipeline.versions.quality import Quality
from pipeline.versions.state import Commit, FieldChange, VersionId
from pipeline.versions.store.version_store import VersionStore
from tests.support.manual_clock import ManualClock

DIMS = {"item": 8, "user": 16}


def project_at(root: Path, **sections: Any) -> Project:
    """A project with two fields; further top-level sections of the configuration as keywords."""
    document = {
        "events": {
            "key": ["id"],
            "impressions": {"columns": {"id": "int", "user": "int", "item": "int", "price": "float"}},
            "clicks": {"columns": {"id": "int"}},
        },
        "fields": [{"name": n, "columns": [n], "dim": d} for n, d in DIMS.items()],
        "dense": [{"name": "price", "column": "price"}],
        "publish": {"loss": 0.0002},
        **sections,
    }
    return Project(root, parse_config(document), ManualClock(1_700_000_000_000))


class Rows:
    """A field's rows in NumPy, as a `RowSource` of the publisher."""

    def __init__(self, dim: int, rounding: RowRounding | None = None) -> None:
        self.rounding = rounding
        statistics = [(name, STATISTICS_DTYPE[name]) for name in STATISTICS_DTYPE.names]
        self.dtype = np.dtype([("weights", np.float32, (dim,)), *statistics])
        self.stored: dict[int, np.ndarray] = {}

    def keys(self) -> np.ndarray:
        return np.array(sorted(self.stored), np.uint64)

    def rows(self, keys: np.ndarray) -> np.ndarray:
        return np.array([self.stored[int(k)] for k in keys], self.dtype).reshape(len(keys))

    def put(self, key: int, weights: np.ndarray, curvature: float, importance: float = 1.0, seen_s: int = 0) -> None:
        self.stored[key] = np.array((weights, 1, seen_s, importance, 0.5, curvature), self.dtype)


@dataclass
class SyntheticCommit:
    """A commit's version, and the delta it publishes."""

    id: VersionId
    prepared: PreparedUpdate


class SyntheticTrainer:
    """Commits random changes of two fields. `seed` decides everything."""

    def __init__(self, project: Project, seed: int = 0, shard: int = 0, keys: int = 60) -> None:
        self.project, self.shard, self.span = project, shard, keys
        self.random = np.random.default_rng(seed)
        self.log, self.store = SqliteLog(project.logs, project.clock), VersionStore(project)
        self.hooks = Hooks(project, self.log)
        self.levels = LevelPublisher(project, self.store, self.hooks, shard)
        self.tables = {name: Rows(dim) for name, dim in DIMS.items()}
        self.epoch = self.store.raise_epoch(shard)
        self.delta_writer = DeltaWriter(project, self.log, shard)
        settings = PublishSettings.of(project.config)
        self.publisher = Publisher(settings, self.tables, {n: ServedView(d) for n, d in DIMS.items()})
        self.loss = 1e5
        """What training loses, summed over samples."""
        self.dense: bytes | TrainedWeights = b""
        self.model: dict[str, str] = {}
        self.commits: list[SyntheticCommit] = []

    def change(self, count: int = 20, removed: int = 3) -> dict[str, TouchedRows]:
        """Change `count` rows of every field and remove `removed`."""
        touched = {}
        for name, table in self.tables.items():
            keys = np.unique(self.random.integers(1, self.span, count).astype(np.uint64))
            for key in keys:
                old = table.stored.get(int(key))
                base = self.random.normal(0, 0.05, DIMS[name]) if old is None else old["weights"]
                moved = base + self.random.normal(0, 0.01, DIMS[name])
                table.put(int(key), moved.astype(np.float32), 100 * self.random.pareto(1.2), seen_s=self.next_at_s)
            removed_keys = np.setdiff1d(self.random.choice(table.keys(), removed, replace=False), keys).astype(
                np.uint64
            )
            for key in removed_keys:
                del table.stored[int(key)]
            touched[name] = TouchedRows(keys, table.rows(keys), removed_keys)
        return touched

    def commit(
        self,
        publish: bool = True,
        flush: bool = False,
        touched: dict[str, TouchedRows] | None = None,
        hold: bool = False,
    ) -> SyntheticCommit:
        """Commit one version of random changes to the store, then append its delta to the topic."""
        touched = self.change() if touched is None else touched
        id, parent = self.store.next_id(self.shard), self.store.current(self.shard)
        at_ms = self.next_at_s * 1000
        self.dense = self.next_dense()
        step = VersionRange(
            id.generation,
            id.shard,
            id.shards,
            parent.sequence if parent else 0,
            id.sequence,
            at_ms - 59_000,
            at_ms,
            self.model,
        )
        prepared = self.publisher.prepare(step, touched, self.dense, loss=self.loss, flush=flush, hold=hold)
        self.store.commit(self._commit(id, parent, step, touched, prepared))
        if publish:
            self.delta_writer.append(prepared.delta, prepared.encoded)
        self.commits.append(SyntheticCommit(id, prepared))
        return self.commits[-1]

    @property
    def next_at_s(self) -> int:
        """Log time of the next commit: one a minute."""
        return 60 * self.store.next_id(self.shard).sequence

    def next_dense(self) -> bytes | TrainedWeights:
        """The dense weights of the next commit; bytes stand for weights that are served as they are."""
        return self.random.bytes(40)

    def run(self, commits: int, **how: Any) -> None:
        for _ in range(commits):
            self.commit(**how)

    def restart(self) -> None:
        """Construct a new publisher from the store's CURRENT."""
        current = self.store.current(self.shard)
        views = {name: build_served_view(entries) for name, entries in self.store.served(current).items()}
        handles = self.commits[-1].prepared.next_handles
        dense = self.store.complete_delta(current).dense
        price = Price.of(self.store.outline(current).price)
        settings = PublishSettings.of(self.project.config)
        self.publisher = Publisher(settings, self.tables, views, handles, dense, price)

    def close(self) -> None:
        self.hooks.close()
        self.store.close()
        self.log.close()

    def _commit(self, id, parent, step, touched, prepared) -> Commit:
        fields = {}
        for name, change in prepared.fields.items():
            base = FieldChange.empty(DIMS[name], self.tables[name].dtype.itemsize)
            keys = touched[name].keys if name in touched else base.keys
            rows = self.tables[name].rows(keys).view(np.uint8).reshape(len(keys), self.tables[name].dtype.itemsize)
            fields[name] = replace(
                base,
                keys=keys,
                rows=rows,
                removed=touched[name].removed if name in touched else base.removed,
                served_keys=change.keys,
                served_handles=change.handles,
                served_bits=change.bits,
                served_payload=change.payload,
                served_removed=change.removed,
            )
        return Commit(
            id=id, parent=parent, epoch=self.epoch, offset=0, row=id.sequence, log_id="log",
            first_at_ms=step.first_at_ms, last_at_ms=step.last_at_ms, fields=fields,
            dense=self.dense if isinstance(self.dense, bytes) else self.dense.packed,
            training_state={}, validation={}, quarantines_seen=[], next_handles=prepared.next_handles,
            model_digest="m", digest="d", served_digest=prepared.served_digest, delta=prepared.encoded,
            full=parent is None, samples_seen=0, served_dense=prepared.served_dense,
            price=prepared.price.numbers(),
            quality=Quality(prepared.price.predicted, withheld=dict(prepared.withheld)),
        )  # fmt: skip
