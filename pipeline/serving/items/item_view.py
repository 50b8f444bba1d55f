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
from pipeline.errors import InputError, ModelError, SpringtideError
from pipeline.features.plan import Features
from pipeline.process.clock import Clock
from pipeline.process.log_limit import LogLimit
from pipeline.recall.scan_index import ScanIndex
from pipeline.serving.items.item_file import ItemName, Stamp, read_items, stamp_of
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


@dataclass(frozen=True)
class _Catalogue:
    """The items as the file has them; they do not depend on the version."""

    stamp: Stamp
    names: list[ItemName]
    features: list[Features]
    """Of the items in pieces of `_ITEMS_AT_ONCE`."""


@dataclass(frozen=True)
class _Embedded:
    """The vectors of a catalogue by the item tower of a version. Items have their place in the catalogue as id."""

    catalogue: _Catalogue
    index: ScanIndex
    version: str
    sequence: int


class ItemView:
    """Many threads may call `recall`; one thread calls `reread` and `refresh`."""

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
        self._path, self._column = root / recall.items, towers.item_column
        self._user = Predictor(config, root, (towers.query,))
        self._item = Predictor(config, root, (towers.item,))
        self._catalogue = self._read()
        self._lock = ReadWriteLock()
        self._embedded: _Embedded | None = None

    @property
    def ready(self) -> bool:
        """Whether items are embedded."""
        return self._embedded is not None

    def reread(self) -> bool:
        """Read the file of items if it was replaced; returns whether it was. The next `refresh` switches to its items.

        Raises InputError, with the items before still in use, if the file is wrong.
        """
        if stamp_of(self._path) == self._catalogue.stamp:
            return False
        self._catalogue = self._read()
        return True

    def refresh(self) -> bool:
        """Embed the items by the newest version and switch to it; returns whether either is another one.

        Raises ModelError, with the version before still in use, if a vector is not finite.
        """
        with self._replica.reading():
            version, sequence, dense = self._replica.version, self._replica.sequence, self._replica.dense
        before, catalogue = self._embedded, self._catalogue
        unchanged = before is not None and before.version == version and before.catalogue is catalogue
        if unchanged or not self._replica.ready:
            return False
        self._item.load(dense)
        embedded = _Embedded(catalogue, self._index_of(catalogue), version, sequence)
        with self._lock.writing():
            self._user.load(dense)
            self._embedded = embedded
        return True

    def readings(self) -> Iterator[Reading]:
        """The version in use."""
        if self._embedded is not None:
            yield metrics.RECALL_SEQUENCE.reading(self._embedded.sequence, 0)

    def recall(self, instances: Sequence[Any], k: int) -> Recalled:
        """The k items with the largest inner products for each user.

        Args:
            instances: n objects of raw impression columns; an absent column is null.
            k: items for each; fewer if there are fewer.

        Raises:
            InputError: an instance does not fit the configuration, or no version is embedded.
            ModelError: a user's function failed, or a vector is not finite.
        """
        features = self._user.features(instances, self._clock.now_ms())
        with self._lock.reading():
            embedded = self._embedded
            if embedded is None:
                raise InputError("the items are not embedded yet. hint: retry later")
            with self._replica.reading():
                vectors = self._user.predict(features, self._replica.lookup)
        _require_finite(vectors, "the user of instance", range(len(vectors)))
        names = embedded.catalogue.names
        found = embedded.index.search(vectors, min(k, len(names)))
        metrics.RECALL_QUERIES.inc(len(vectors))
        metrics.RECALL_SURVIVORS.inc(int(found.survivors.sum()))
        metrics.RECALL_PASSES.inc(int(found.passes.sum()))
        items = [[names[item] for item in row] for row in found.ids.tolist()]
        return Recalled(items, found.scores.tolist(), embedded.version)

    def _read(self) -> _Catalogue:
        stamp, now_ms = stamp_of(self._path), self._clock.now_ms()
        items = read_items(self._path, self._column)
        starts = range(0, len(items.columns), _ITEMS_AT_ONCE)
        features = [self._item.features(items.columns[s : s + _ITEMS_AT_ONCE], now_ms, s) for s in starts]
        return _Catalogue(stamp, items.names, features)

    def _index_of(self, catalogue: _Catalogue) -> ScanIndex:
        """The vectors of all items by the loaded item tower and the rows as they are."""
        index = None
        for number, features in enumerate(catalogue.features):
            first = number * _ITEMS_AT_ONCE
            with self._replica.reading():
                vectors = self._item.predict(features, self._replica.lookup)
            _require_finite(vectors, "item", catalogue.names[first : first + len(vectors)])
            index = index or ScanIndex(vectors.shape[1])
            index.put(np.arange(first, first + len(vectors), dtype=np.uint64), vectors)
        assert index is not None, "a catalogue has items"
        return index


def _require_finite(vectors: Float32s, what: str, names: Sequence[ItemName]) -> None:
    """Raise ModelError for a vector that is not finite: that of `what` and its name."""
    invalid = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(invalid):
        row = int(invalid[0])
        hint = "hint: check the weights of the model"
        raise ModelError(f"the vector of {what} {names[row]!r} is not finite: {vectors[row].tolist()[:4]}. {hint}")


def keep_fresh(view: ItemView, clock: Clock, every_s: float, stop: threading.Event) -> None:
    """Reread and refresh the view until `stop` is set.

    A failure is logged, at a bounded rate; the items and the version before stay in use. A wrong file does not prevent
    that the items before are embedded by new versions.
    """
    limit = LogLimit(clock)
    while not stop.is_set():
        for step in (view.reread, view.refresh):
            try:
                step()
            except SpringtideError as failure:
                if (suppressed := limit.allow()) is not None:
                    logger.error("items cannot be embedded", problem=str(failure), suppressed=suppressed)
        stop.wait(every_s)
