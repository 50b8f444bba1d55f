"""The index of items as a view of the served version: all item vectors, and the user tower that belongs to them.

A new version is embedded into a new index beside the one in use. Then index and user tower are replaced together, so
that an answer never mixes towers of two versions. Between two versions, new and changed items of the topic are embedded
by the tower of the version in use, and removed ones leave its index. Rows of embedding tables are read when a vector is
computed: those of items during the embedding, those of a user for each request.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from math import ceil
from typing import Any

import numpy as np

from pipeline.arrays.types import Float32s
from pipeline.configuration.project import Project
from pipeline.errors import InputError, ModelError
from pipeline.features.plan import Features
from pipeline.logs.interface.log import Log
from pipeline.recall.item_changes import ItemName
from pipeline.serving.instance_reader import JointReader
from pipeline.serving.items.attributes import Allowed, Attributes
from pipeline.serving.items.catalogue import ITEMS_AT_ONCE, Catalogue, CatalogueChange
from pipeline.serving.items.embedder import EmbeddedItems, Embedding, ItemEmbedder, require_finite
from pipeline.serving.items.flip_rule import SAMPLED_PIECES, FlipRule, Sampled
from pipeline.serving.items.item_index import ItemIndex, ScannedItems, Users, with_direction
from pipeline.serving.items.item_source import ItemSource
from pipeline.serving.items.scorer import Scorer
from pipeline.serving.items.tree_index import TreeIndex
from pipeline.serving.lock import ReadWriteLock
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica
from pipeline.telemetry import metrics
from pipeline.telemetry.registry import Reading

Pause = Callable[[], None]
"""Called where the embedding can give way to small predictions."""


@dataclass(frozen=True)
class Recalled:
    """The items found for n users, best first."""

    items: list[list[ItemName]]
    scores: list[list[float]]
    """Inner products of the two vectors, or what the scorer predicts."""
    version: str
    """The version whose dense weights both towers and the scorer have."""


@dataclass(frozen=True)
class _Embedded:
    """The vectors of a catalogue by the item tower of a version."""

    catalogue: Catalogue
    index: ItemIndex
    version: str
    sequence: int
    dense: bytes
    at_ms: int
    sample: EmbeddedItems | None
    """Some of the items, as they were embedded; None if there are none."""


class ItemView:
    """Many threads may call `recall`; one thread calls `reread`, `admit` and `refresh`."""

    def __init__(self, project: Project, replica: Replica, log: Log, *, patient: bool = False) -> None:
        """Read the items, and build both towers; `refresh` embeds the items.

        `project` has `[recall]`, `replica` serves the whole model, and `log` holds the topic of items. Raises
        ConfigError, ModelError, LogError, and InputError for a wrong file of items: if it is `patient`, `problem` is
        set instead, and `reread` tries again.
        """
        config, root, towers = project.config, project.root, project.config.towers
        assert towers is not None, "[recall] requires two towers"
        assert config.recall is not None, "the project has no [recall]"
        self._replica, self._clock, self._normalised = replica, project.clock, towers.normalise
        self._recall = config.recall
        self._user = Predictor(config, root, (towers.query,))
        self.attributes = Attributes(config.recall.attributes, config.events.impressions.columns)
        self._items = ItemEmbedder(project, replica, self.attributes.columns)
        self._rule = FlipRule(config.recall.flip_overlap, lambda: Predictor(config, root, (towers.query,)))
        label = config.recall.scorer
        self._scorer = None if label is None else Scorer(config, root, label, self._items.columns)
        halves = [] if self._scorer is None else [self._scorer.users.config]
        self._users = JointReader(config, root, [self._user.config, *halves])
        self._source = ItemSource(project, self._items.reader, self.attributes, log)
        self.problem: str | None = None
        """Why the file of items could not be read the last time; the items before it, if any, stay in use."""
        self._catalogue: Catalogue | None = None
        try:
            self._read()
        except InputError:
            if not patient:
                raise
        self._lock = ReadWriteLock()
        self._embedded: _Embedded | None = None
        self._skipped: str | None = None

    @property
    def ready(self) -> bool:
        """Whether items are embedded."""
        return self._embedded is not None

    def reread(self) -> bool:
        """Read all items again if their file was replaced; returns whether it was. The next `refresh` switches to them.

        Raises InputError and LogError, with the items before still in use.
        """
        try:
            replaced = self._source.replaced
        except InputError as failure:
            self.problem = str(failure)
            raise
        if replaced or self._catalogue is None:
            self._read()
        return replaced

    def admit(self) -> int:
        """Apply the new changes of the topic: returns how many items changed or were removed.

        Vectors are computed by the item tower of the version in use. A change that does not fit the configuration is
        refused: the item stays as it was. One whose vector or part of the scorer is not finite withholds the item, as
        a new version would: it is not found until a change or a version makes both finite. Raises LogError.
        """
        count, catalogue = 0, self._catalogue
        if catalogue is None:
            return 0
        for change in self._source.changes(catalogue):
            self._apply(change, catalogue)
            count += change.read
        catalogue.limit_pieces()
        return count

    def refresh(self, pause: Pause = lambda: None) -> bool:
        """Embed the items by the newest version and switch to it; returns whether it was done.

        It is done if the version, the catalogue or a large part of the items of a tree (`TreeIndex`) changed. A version
        that keeps enough of the best items (`recall.flip_overlap`) is skipped, unless something else of these or the
        generation changed. `pause` is called between some thousand items.

        Items whose vector or part of the scorer is not finite are withheld. Raises ModelError, with the version before
        still in use, if those of the first items by id, some thousand, all are.
        """
        with self._replica.reading():
            version, sequence, dense = self._replica.version, self._replica.sequence, self._replica.dense
        before, catalogue = self._embedded, self._catalogue
        kept = before is not None and before.catalogue is catalogue and not before.index.outgrown
        unchanged = before is not None and kept and version in (before.version, self._skipped)
        if catalogue is None or unchanged or not self._replica.ready or (before is None and not len(catalogue)):
            return False
        self._items.load(dense)
        try:
            if before is not None and kept and self._skips(before, version, dense):
                self._skipped = version
                self._items.load(before.dense)
                return False
            index, sample = self._index_of(catalogue, pause)
        except ModelError:
            if before is not None:
                self._items.load(before.dense)
            raise
        with self._lock.writing():
            self._user.load(dense)
            if self._scorer is not None:
                self._scorer.load(dense)
            at_ms = self._clock.now_ms()
            self._embedded = _Embedded(catalogue, index, version, sequence, dense, at_ms, sample)
        return True

    def readings(self) -> Iterator[Reading]:
        """The version in use, the number of its items and their age, and the overlap measured last."""
        if self._embedded is not None:
            yield metrics.RECALL_SEQUENCE.reading(self._embedded.sequence, 0)
            yield metrics.RECALL_ITEMS.reading(len(self._embedded.index))
            yield metrics.RECALL_EMBEDDED_AT.reading(self._embedded.at_ms / 1000)
            yield metrics.RECALL_WITHHELD.reading(len(self._embedded.catalogue) - len(self._embedded.index))
        if self._rule.overlap is not None:
            yield metrics.RECALL_OVERLAP.reading(self._rule.overlap)
        yield metrics.RECALL_UNREADABLE.reading(int(self.problem is not None))

    def recall(self, instances: Sequence[Any], k: int, allowed: Allowed | None = None) -> Recalled:
        """The k items with the largest inner products for each user, or the best of them by the scorer.

        Args:
            instances: n objects of raw impression columns; an absent column is null.
            k: items for each; fewer if there are fewer.
            allowed: the items that may be found; by default all.

        Raises:
            InputError: an instance does not fit the configuration, or no version is embedded.
            ModelError: a user's function failed, or a vector is not finite.
        """
        read = self._users.features(instances, self._clock.now_ms())
        self._require_users(instances)
        features = self._users.of(read, 0)
        self._rule.remember(read)
        with self._lock.reading():
            embedded = self._embedded
            if embedded is None:
                raise InputError("the items are not embedded yet. hint: retry later")
            users = self._embedded_users(features, read)
            found, scores = embedded.index.find(users, self._scorer, k, allowed or Allowed())
            items = [[embedded.catalogue.names[id] for id in ids.tolist()] for ids in found]
        metrics.RECALL_QUERIES.inc(len(items))
        return Recalled(items, [row.tolist() for row in scores], embedded.version)

    def _embedded_users(self, features: Features, read: Features) -> Users:
        """The users of what the user tower reads, and of what was read for tower and scorer. Raises ModelError."""
        with self._replica.reading():
            vectors = self._user.predict(features, self._replica.lookup)
            scorer, parts = self._scorer, None
            if scorer is not None:
                parts = scorer.users.parts(self._users.of(read, 1), self._replica.lookup)
        require_finite(vectors, "the user of instance", range(len(vectors)))
        return Users(vectors, parts)

    def vectors(self) -> Iterator[tuple[list[ItemName], Float32s]]:
        """Names and vectors ([n, dim] float32) of all items in use, by the rows as they are now; by ascending id.

        Call it in the thread of `refresh`. Raises ModelError as `refresh`.
        """
        embedded = self._embedded
        assert embedded is not None, "no version is embedded"
        for items in self._embedded_pieces(embedded.catalogue):
            yield [embedded.catalogue.names[id] for id in items.ids.tolist()], items.vectors

    def _read(self) -> None:
        try:
            self._catalogue, self.problem = self._source.read(), None
        except InputError as failure:
            self.problem = str(failure)
            raise

    def _apply(self, change: CatalogueChange, catalogue: Catalogue) -> None:
        embedded = self._embedded
        index = embedded.index if embedded is not None and embedded.catalogue is catalogue else None
        embedding = Embedding(None, {})
        if index is not None and change.names:
            embedding = self._items.embed(change.names, change.put)
            for row, problem in embedding.problems.items():
                self._source.refuse(change.names[row], problem)
            self._report_withheld(embedding.items, dict(zip(change.put.ids.tolist(), change.names, strict=True)))
        lost = np.concatenate([change.removed, change.put.ids[list(embedding.problems)]])
        make = None if index is None else index.change(lost, embedding.items)
        with self._lock.writing():  # a search in progress names the items that it found
            catalogue.apply(change)
            if make is not None:
                make()

    def _skips(self, before: _Embedded, version: str, dense: bytes) -> bool:
        """Whether the index before stays in use; the item tower is that of the new version."""
        read = self._rule.users
        if read is None or _generations(version) != _generations(before.version):
            return False
        share = min(1.0, SAMPLED_PIECES * ITEMS_AT_ONCE / max(1, len(before.catalogue)))
        scored = None if self._recall.tree is not None else ceil(self._recall.scored * share)
        try:
            users = self._embedded_users(self._users.of(read, 0), read)
            sample = self._sample(islice(self._embedded_pieces(before.catalogue), SAMPLED_PIECES))
            if sample is None or before.sample is None:
                return False
            was = Sampled(users, before.sample, self._scorer)
            now = Sampled(self._new_users(read, dense), sample, self._items.scorer)
            return self._rule.skips(was, now, scored)
        except ModelError:  # what cannot be measured is used, if it can be embedded
            return False

    def _new_users(self, read: Features, dense: bytes) -> Users:
        """Users by a version whose weights the item tower has already."""
        with self._replica.reading():
            vectors = self._rule.embed(dense, self._users.of(read, 0), self._replica)
            scorer = self._items.scorer
            parts = None if scorer is None else scorer.users.parts(self._users.of(read, 1), self._replica.lookup)
        require_finite(vectors, "the user of request", range(len(vectors)))
        return Users(vectors, parts)

    def _sample(self, pieces: Iterable[EmbeddedItems]) -> EmbeddedItems | None:
        """The items of all pieces that can be found; None if there are none."""
        kept = [found for piece in pieces if (found := with_direction(piece, self._normalised)[0]) is not None]
        return EmbeddedItems.concatenated(kept) if kept else None

    def _index_of(self, catalogue: Catalogue, pause: Pause) -> tuple[ItemIndex, EmbeddedItems | None]:
        """All items by the loaded item tower and the rows as they are, and a sample of them."""
        first: list[EmbeddedItems] = []

        def embedded() -> Iterator[EmbeddedItems]:
            for items in self._embedded_pieces(catalogue):
                if len(first) < SAMPLED_PIECES:
                    first.append(items)
                yield items
                pause()

        return self._built(embedded()), self._sample(first)

    def _embedded_pieces(self, catalogue: Catalogue) -> Iterator[EmbeddedItems]:
        """All items that an index can hold, by ascending id; the others are logged.

        Raises ModelError if the first piece has none.
        """
        for number, piece in enumerate(catalogue.pieces()):
            names = [catalogue.names[id] for id in piece.ids.tolist()]
            found = self._items.embed(names, piece)
            for row, problem in found.problems.items():
                if number == 0 and found.items is None:
                    raise ModelError(problem)
                self._source.report(names[row], problem)
            self._report_withheld(found.items, catalogue.names)
            if found.items is not None:
                yield found.items

    def _report_withheld(self, items: EmbeddedItems | None, names: Mapping[int, ItemName]) -> None:
        """Log the items, named by id, that an index withholds although they have a vector."""
        for id in with_direction(items, self._normalised)[1].tolist():
            hint = "hint: it was all zeros, or its square exceeded 32 bits"
            problem = f"the vector of item {names[id]!r} has length 0, wanted 1 (towers.normalise). {hint}"
            self._source.report(names[id], problem)

    def _built(self, items: Iterator[EmbeddedItems]) -> ItemIndex:
        """An index of items; of the dimension before if there are none."""
        some, before = next(items, None), self._embedded
        if some is not None:
            items, dim = chain([some], items), some.vectors.shape[1]
        else:
            assert before is not None, "the first catalogue that is embedded has items"
            dim = before.index.dim
        if self._recall.tree is not None:
            return TreeIndex(items, dim, self._recall.tree, normalised=self._normalised)
        index = ScannedItems(dim, len(self.attributes), normalised=self._normalised, scored=self._recall.scored)
        for each in items:
            index.put(each)
        return index

    def _require_users(self, instances: Sequence[Any]) -> None:
        """Raise InputError for an instance without any column that the user tower reads: it is no user."""
        columns = self._user.columns
        for number, instance in enumerate(instances):
            if columns and isinstance(instance, dict) and all(instance.get(column) is None for column in columns):
                raise InputError(
                    f"instance {number} has no column that the user tower reads. hint: it reads {', '.join(columns)}"
                )


def _generations(version: str) -> list[str]:
    """The generations of the shards of a version.

    >>> _generations("g1/s0-of-2/42+g1/s1-of-2/40")
    ['g1', 'g1']
    """
    return [part.partition("/")[0] for part in version.split("+")]
