"""A replica: the reference consumer of deltas. It follows every shard and predicts from the rows it holds.

It starts from published files and continues with the deltas topic. Applied deltas are skipped, gaps are closed from
files; damaged, foreign and reordered deltas and those of an older generation are refused, counted and reported, and
the last good version stays in service. Until shared rows are reconciled between shards, a key is served from the
lowest shard that has a row for it, and dense weights are those of shard 0. A replica of a part of the model holds the
rows of the tables, and the dense weights, that the part depends on.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.arrays.block import UInt64s
from pipeline.arrays.types import Float32s
from pipeline.configuration.model.tables import tables_of
from pipeline.configuration.project import Project
from pipeline.errors import InputError, LogError
from pipeline.features.plan import Features
from pipeline.logs.interface.end_offsets import EndOffsets
from pipeline.logs.interface.log import Log
from pipeline.serving.export import served_table
from pipeline.serving.follower import Follower
from pipeline.serving.lock import ReadWriteLock
from pipeline.serving.served_shard import ServedShard
from pipeline.serving.staged_delta import StagedDelta

if TYPE_CHECKING:
    from pipeline.serving.predictor import Predictor


class Replica:
    """Many threads may read; one thread calls `catch_up`. Readers see a shard's version completely or not at all."""

    def __init__(
        self, project: Project, log: Log, model_digest: str | None = None, predictor: "Predictor | None" = None
    ) -> None:
        """Create an empty replica; `catch_up` applies the latest version.

        Args:
            project: configuration, published files and user code.
            log: holds the deltas topic.
            model_digest: deltas of another model are refused; None accepts all whose tables and dense weights fit.
            predictor: of `serving.part`, whose tables are held; without one, all are.
        """
        config = project.config
        self._project, self._lock, self._ends = project, ReadWriteLock(), EndOffsets(log)
        self._predictor, self._part = predictor, None if predictor is None else config.serving.part
        held = None if predictor is None or self._part is None else predictor.tables
        dims = {name: table.dim for name, table in tables_of(config.fields).items()}
        count = config.logs.shards
        log.create_topic(config.topics.deltas, count)
        self._shards = [ServedShard(shard, count, dims, model_digest, held, self._part) for shard in range(count)]
        self._followers = [Follower(project, log, served, self._switch) for served in self._shards]

    @classmethod
    def for_predictions(cls, project: Project, log: Log) -> "Replica":
        """A replica of the model, or of `serving.part`, with its predictor; it refuses deltas of other models.

        Raises ConfigError and ModelError.
        """
        predictor = _new_predictor(project, project.config.serving.part)
        return cls(project, log, predictor.model_digest, predictor)

    @property
    def version(self) -> str:
        """The served version, such as `g0/s0-of-1/42`; the versions of several shards are joined by `+`."""
        return "+".join(map(str, self._shards))

    @property
    def ready(self) -> bool:
        """Whether every shard serves a version."""
        return all(served.sequence > 0 for served in self._shards)

    def catch_up(self, wait_ms: int = 0) -> int:
        """Apply all available deltas and files; returns how many were applied. Refused ones raise nothing.

        `wait_ms` limits the time to wait for a delta, over all shards.
        """
        wait_ms //= len(self._followers)
        return sum(follower.catch_up(wait_ms) for follower in self._followers)

    def reading(self) -> AbstractContextManager[None]:
        """A context in which no delta is applied: all reads see one version. Not reentrant."""
        return self._lock.reading()

    def predict(self, instances: Sequence[Any]) -> tuple[Float32s, str]:
        """Predict JSON instances with one consistent version.

        Args:
            instances: n objects of raw impression columns; an absent column is null.

        Returns:
            ([n, served names] float32, the version used).

        Raises:
            InputError: an instance does not fit the configuration.
            ModelError: a user's function failed.
        """
        return self.predict_pieces([instances])

    def predict_pieces(self, pieces: Iterable[Sequence[Any]]) -> tuple[Float32s, str]:
        """Predict the instances of all pieces, in order, with one consistent version; otherwise as `predict`."""
        predictor, now_ms, count = self.load_predictor(), self._project.clock.now_ms(), 0
        found = []
        for piece in pieces:
            found.append(predictor.features(piece, now_ms, count))
            count += len(piece)
        features = Features.concatenated(found)
        with self.reading():
            return predictor.predict(features, self.lookup), self.version

    @property
    def sequence(self) -> int:
        """The served version's sequence in shard 0, which has the dense weights. Call it inside `reading`."""
        return self._shards[0].sequence

    @property
    def dense(self) -> bytes:
        """The dense weights of the complete network. Call it inside `reading`."""
        return self._shards[0].dense

    def warm_up(self) -> None:
        """Predict once, so that the first request does not wait for the network to be compiled."""
        self.load_predictor().warm_up()

    def lookup(self, table: str, keys: UInt64s) -> Float32s:
        """[n, dim] float32, the served rows of `keys`; zeros for a key without a row. Call it inside `reading`."""
        views = [served.views[table] for served in self._shards]
        rows = views[0].decode(keys)
        missing = np.flatnonzero(views[0].bits(keys) == 0)
        for view in views[1:]:
            rows[missing] = view.decode(keys[missing])
            missing = missing[view.bits(keys[missing]) == 0]
        return rows

    def export(self, table: str) -> pa.Table:
        """The served rows of one table, with the columns of `export.SCHEMA`. Raises InputError."""
        known = list(self._shards[0].views)
        if table not in known:
            raise InputError(f"table {table} does not exist. known: {', '.join(known)}")
        with self.reading():
            return served_table([served.views[table] for served in self._shards])

    def digest(self, shard: int = 0) -> str:
        """Served digest of a shard, hex, recomputed from its rows; equals `after` of the last applied delta."""
        with self.reading():
            return self._shards[shard].scan_digest()

    def status(self) -> dict[str, Any]:
        """Version, lag and refusals of every shard; JSON-able. Lags are None while the log is unavailable."""
        # Read before the lock is acquired: a slow log would block the writer, and the waiting writer new readers.
        ends = [self._end_offset(shard) for shard in range(len(self._shards))]
        with self.reading():
            shards = [follower.status(end) for follower, end in zip(self._followers, ends, strict=True)]
            return {"version": self.version, "ready": self.ready, "part": self._part, "shards": shards}

    def load_predictor(self) -> "Predictor":
        """The predictor; the first call builds features and network. Raises ConfigError and ModelError."""
        if self._predictor is None:
            predictor = _new_predictor(self._project, None)
            with self._lock.writing():
                if self._shards[0].dense:
                    predictor.load(self._shards[0].dense)
                self._predictor = predictor
        return self._predictor

    def _end_offset(self, shard: int) -> int | None:
        """End offset of a shard's deltas; None while the log is unavailable."""
        try:
            return self._ends.end_offset(self._project.config.topics.deltas, shard)
        except LogError:
            return None  # the follower gets the same error, and `follow` logs it

    def _switch(self, served: ServedShard, staged: StagedDelta) -> None:
        with self._lock.writing():
            served.switch(staged, self._load_dense if served.shard == 0 else _ignore)

    def _load_dense(self, dense: bytes) -> None:
        if self._predictor is not None:
            self._predictor.load(dense)


def _new_predictor(project: Project, part: str | None) -> "Predictor":
    # Imported here: only predictions need TensorFlow; following and exporting need not wait for its import.
    from pipeline.serving.predictor import Predictor

    return Predictor(project.config, project.root, None if part is None else project.config.part(part).labels)


def _ignore(dense: bytes) -> None:
    """Dense weights of shards other than 0 are not served."""
