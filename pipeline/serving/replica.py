"""A replica: the reference consumer of deltas. It follows every shard's chain and answers predictions from it.

It starts from published files and goes on with the deltas topic; it skips what it has, heals a gap from the files, and
refuses what is damaged, out of order, foreign or of an older generation: that is counted and shown, and the last good
version goes on serving. Shared rows live on several shards until they are reconciled (D12): a key's row is that of the
lowest shard that has one, dense weights are shard 0's.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays.block import UInt64s
from pipeline.configuration.project import Project
from pipeline.errors import InputError, LogError
from pipeline.logs.end_offsets import Ends
from pipeline.logs.log import Log
from pipeline.serving.chain import Chain, Step
from pipeline.serving.export import served_table
from pipeline.serving.follower import Follower
from pipeline.serving.lock import ReadWriteLock

if TYPE_CHECKING:
    from pipeline.serving.predictor import Predictor

Floats = npt.NDArray[np.float32]


class Replica:
    """Many threads may read; one thread calls `catch_up`. Readers see each version of a shard whole or not at all."""

    def __init__(self, project: Project, log: Log, model_digest: str | None = None) -> None:
        """Start with nothing; `catch_up` brings the newest version.

        Args:
            project: configuration, published files and user code.
            log: holds the deltas topic.
            model_digest: refuse deltas of another model; None takes any whose fields and dense weights fit.
        """
        config = project.config
        self._project, self._lock, self._ends = project, ReadWriteLock(), Ends(log)
        self._predictor: Predictor | None = None
        dims = {field.name: field.dim for field in config.fields}
        shards = config.logs.shards
        log.create_topic(config.topics.deltas, shards)
        chains = [Chain(shard, shards, dims, model_digest) for shard in range(shards)]
        self._followers = [Follower(project, log, chain, self._switch) for chain in chains]

    @classmethod
    def for_predictions(cls, project: Project, log: Log) -> "Replica":
        """One that can predict at once and refuses deltas of another model. Raises ConfigError and ModelError."""
        # Only predictions need TensorFlow; following and exporting do not wait for its import.
        from pipeline.serving.predictor import Predictor

        predictor = Predictor(project.config, project.root)
        replica = cls(project, log, predictor.model_digest)
        replica._predictor = predictor
        return replica

    @property
    def version(self) -> str:
        """The version being served, such as `g0/s0-of-1/42`; of several shards joined by `+`."""
        return "+".join(str(f.chain) for f in self._followers)

    @property
    def ready(self) -> bool:
        """Whether every shard serves a version."""
        return all(f.chain.sequence > 0 for f in self._followers)

    def catch_up(self, wait_ms: int = 0) -> int:
        """Apply everything that is there; returns how many deltas and files were. Never raises for a bad one.

        `wait_ms` is how long a delta is waited for at most, shard after shard.
        """
        wait_ms //= len(self._followers)
        return sum(follower.catch_up(wait_ms) for follower in self._followers)

    def predict(self, instances: Sequence[Any]) -> tuple[Floats, str]:
        """Probabilities of JSON instances by one consistent version.

        Args:
            instances: n objects of raw impression columns; a column left out is null.

        Returns:
            ([n, labels] float32, the version that gave them).

        Raises:
            InputError: an instance does not fit the configuration.
        """
        predictor = self.load_predictor()
        features = predictor.features(instances, self._project.clock.now_ms())
        with self._lock.reading():
            return predictor.predict(features, self.lookup), self.version

    def lookup(self, field: str, keys: UInt64s) -> Floats:
        """[n, dim] float32, the rows of `keys` as serving holds them; zeros for a key without a row."""
        views = [f.chain.views[field] for f in self._followers]
        rows = views[0].decode(keys)
        missing = np.flatnonzero(views[0].bits(keys) == 0)
        for view in views[1:]:
            rows[missing] = view.decode(keys[missing])
            missing = missing[view.bits(keys[missing]) == 0]
        return rows

    def read(self, reader: Callable[["Replica"], Any]) -> Any:
        """What `reader` makes of this replica while no delta is applied."""
        with self._lock.reading():
            return reader(self)

    def export(self, field: str) -> pa.Table:
        """One field's rows as serving holds them, with the columns of `export.SCHEMA`. Raises InputError."""
        known = list(self._followers[0].chain.views)
        if field not in known:
            raise InputError(f"field {field} does not exist. known: {', '.join(known)}")
        with self._lock.reading():
            return served_table([f.chain.views[field] for f in self._followers])

    def digest(self, shard: int = 0) -> str:
        """Hex served digest of a shard, worked out from its rows: the `after` of the delta that led here."""
        with self._lock.reading():
            return self._followers[shard].chain.scan_digest()

    def status(self) -> dict[str, Any]:
        """Where every shard stands, what was refused and why; JSON-able. A lag is None while the log is away."""
        # Not inside the lock: a delta would wait for it with the log, and predictions behind the delta.
        ends = [self._end(shard) for shard in range(len(self._followers))]
        with self._lock.reading():
            shards = [follower.status(end) for follower, end in zip(self._followers, ends, strict=True)]
            return {"version": self.version, "ready": self.ready, "shards": shards}

    def load_predictor(self) -> "Predictor":
        """Build features and network now instead of at the first prediction. Raises ConfigError and ModelError."""
        if self._predictor is None:
            # Only predictions need TensorFlow; following and exporting do not wait for its import.
            from pipeline.serving.predictor import Predictor

            predictor = Predictor(self._project.config, self._project.root)
            with self._lock.writing():
                if self._followers[0].chain.dense:
                    predictor.load(self._followers[0].chain.dense)
                self._predictor = predictor
        return self._predictor

    def _end(self, shard: int) -> int | None:
        """Where the deltas of a shard end; None where the log does not tell."""
        try:
            return self._ends.end(self._project.config.topics.deltas, shard)
        except LogError:
            return None  # who follows the deltas meets it too, and says so

    def _switch(self, chain: Chain, step: Step) -> None:
        with self._lock.writing():
            chain.switch(step, self._load_dense if chain.shard == 0 else _ignore)

    def _load_dense(self, dense: bytes) -> None:
        if self._predictor is not None:
            self._predictor.load(dense)


def _ignore(dense: bytes) -> None:
    """Dense weights of other shards than the first are not served."""
