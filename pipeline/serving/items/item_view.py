"""The index of items as a view of the served version: all item vectors, and the user tower that belongs to them.

A new version is embedded into a new index beside the one in use. Then index and user tower are replaced together, so
that an answer never mixes towers of two versions. Rows of embedding tables are read when a vector is computed: those of
items during the embedding, those of a user for each request.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from pipeline.arrays.types import Float32s
from pipeline.configuration.project import Project
from pipeline.errors import InputError, SpringtideError
from pipeline.features.plan import Features
from pipeline.process.clock import Clock
from pipeline.process.log_limit import LogLimit
from pipeline.recall.scan_index import ScanIndex
from pipeline.serving.items.item_file import ItemName, read_items
from pipeline.serving.lock import ReadWriteLock
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading

_ITEMS_AT_ONCE = 2_048
"""Items whose rows are read together; a delta waits for them."""

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Recalled:
    """The items found for n users, best first."""

    items: list[list[ItemName]]
    scores: list[list[float]]
    """Inner products of the two vectors."""
    version: str
    """The version of both towers."""


class ItemView:
    """Many threads may call `recall`; one thread calls `refresh`."""

    def __init__(self, project: Project, replica: Replica) -> None:
        """Read the items, and build both towers; `refresh` embeds the items.

        `project` has `[recall]`, and `replica` serves the whole model. Raises ConfigError, ModelError, and InputError
        for a wrong file of items.
        """
        config, root = project.config, project.root
        towers, recall = config.towers, config.recall
        assert towers is not None, "[recall] requires two towers"
        assert recall is not None, "the project has no [recall]"
        self._replica, self._clock = replica, project.clock
        self._user = Predictor(config, root, (towers.query,))
        self._item = Predictor(config, root, (towers.item,))
        items = read_items(root / recall.items, towers.item_column)
        self._names = items.names
        self._features = self._features_of(items.columns)
        self._lock = ReadWriteLock()
        self._index: ScanIndex | None = None
        self._version, self._sequence = "", 0

    @property
    def ready(self) -> bool:
        """Whether items are embedded."""
        return self._index is not None

    def refresh(self) -> bool:
        """Embed all items by the newest version and switch to it; returns whether it is another one.

        Raises InputError, with the version before still in use, if a vector is not finite.
        """
        with self._replica.reading():
            version, sequence, dense = self._replica.version, self._replica.sequence, self._replica.dense
        if version == self._version or not self._replica.ready:
            return False
        self._item.load(dense)
        index, first = None, 0
        for features in self._features:
            with self._replica.reading():
                vectors = self._item.predict(features, self._replica.lookup)
            index = index or ScanIndex(vectors.shape[1])
            index.put(np.arange(first, first + len(vectors), dtype=np.uint64), vectors)
            first += len(vectors)
        with self._lock.writing():
            self._user.load(dense)
            self._index, self._version, self._sequence = index, version, sequence
        return True

    def readings(self) -> Iterator[Reading]:
        """The version in use."""
        if self.ready:
            yield metrics.RECALL_SEQUENCE.reading(self._sequence, 0)

    def recall(self, instances: Sequence[Any], k: int) -> Recalled:
        """The k items with the largest inner products for each user.

        Args:
            instances: n objects of raw impression columns; an absent column is null.
            k: items for each; fewer if there are fewer.

        Raises:
            InputError: an instance does not fit the configuration, a vector is not finite, or no version is embedded.
            ModelError: a user's function failed.
        """
        features = self._user.features(instances, self._clock.now_ms())
        with self._lock.reading():
            index, version = self._index, self._version
            if index is None:
                raise InputError("the items are not embedded yet. hint: retry later")
            vectors = self._user_vectors(features)
        found = index.search(vectors, min(k, len(self._names)))
        metrics.RECALL_QUERIES.inc(len(vectors))
        metrics.RECALL_SURVIVORS.inc(int(found.survivors.sum()))
        metrics.RECALL_PASSES.inc(int(found.passes.sum()))
        names = [[self._names[item] for item in row] for row in found.ids.tolist()]
        return Recalled(names, found.scores.tolist(), version)

    def _user_vectors(self, features: Features) -> Float32s:
        with self._replica.reading():
            return self._user.predict(features, self._replica.lookup)

    def _features_of(self, columns: Sequence[dict[str, Any]]) -> list[Features]:
        """The features of all items, which do not depend on the version, in pieces."""
        now_ms = self._clock.now_ms()
        starts = range(0, len(columns), _ITEMS_AT_ONCE)
        return [self._item.features(columns[s : s + _ITEMS_AT_ONCE], now_ms, s) for s in starts]


def keep_fresh(view: ItemView, clock: Clock, every_s: float, stop: threading.Event) -> None:
    """Refresh the view until `stop` is set. A failure is logged, at a bounded rate; the version before stays in use."""
    limit = LogLimit(clock)
    while not stop.is_set():
        try:
            view.refresh()
        except SpringtideError as failure:
            if (suppressed := limit.allow()) is not None:
                logger.error("items cannot be embedded", problem=str(failure), suppressed=suppressed)
        stop.wait(every_s)
