"""A synthetic trainer for tests of publishing and serving: random row changes, real publisher, store and log."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.configuration.config import parse_config
from pipeline.configuration.project import Project
from pipeline.logs.sqlite.sqlite_log import SqliteLog
from pipeline.publish.delta_topic import DeltaWriter
from pipeline.publish.dense_weights import TrainedWeights
from pipeline.publish.hooks.notices import Hooks
from pipeline.publish.level_publisher import LevelPublisher
from pipeline.publish.publisher import PreparedUpdate, Publisher, TouchedRows, VersionRange
from pipeline.versions.deltas.rounding import RowRounding
from pipeline.versions.deltas.served_view import ServedView, build_served_view
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
        "publish": {"share": 0.8},
        **sections,
    }
    return Project(root, parse_config(document), ManualClock(1_700_000_000_000))


class Rows:
    """A field's rows in NumPy, as a `RowSource` of the publisher."""

    def __init__(self, dim: int, rounding: RowRounding | None = None) -> None:
        self.rounding = rounding
        self.dtype = np.dtype([("weights", np.float32, (dim,)), ("importance", np.float32), ("unsettled", np.float32)])
        self.stored: dict[int, np.ndarray] = {}

    def keys(self) -> np.ndarray:
        return np.array(sorted(self.stored), np.uint64)

    def rows(self, keys: np.ndarray) -> np.ndarray:
        return np.array([self.stored[int(k)] for k in keys], self.dtype).reshape(len(keys))

    def put(self, key: int, weights: np.ndarray, importance: float, unsettled: float) -> None:
        self.stored[key] = np.array((weights, importance, unsettled), self.dtype)


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
        self.publisher = Publisher(project.config.publish, self.tables, {n: ServedView(d) for n, d in DIMS.items()})
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
                importance, unsettled = self.random.pareto(1.2), self.random.choice([0.3, 0.01, 0.001, 0.0001])
                table.put(int(key), moved.astype(np.float32), importance, unsettled)
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
        at_ms = id.sequence * 60_000
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
        prepared = self.publisher.prepare(step, touched, self.dense, flush=flush, hold=hold)
        self.store.commit(self._commit(id, parent, step, touched, prepared))
        if publish:
            self.delta_writer.append(prepared.delta, prepared.encoded)
        self.commits.append(SyntheticCommit(id, prepared))
        return self.commits[-1]

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
        self.publisher = Publisher(self.project.config.publish, self.tables, views, handles, dense)

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
        )  # fmt: skip
