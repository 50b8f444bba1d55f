"""What a version computes of items: their vectors by the item tower, and their parts of the scorer."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Bools, Float32s, Int64s, UInt64s
from pipeline.configuration.project import Project
from pipeline.errors import ModelError
from pipeline.recall.item_changes import ItemName
from pipeline.recall.scan_index import MAX_COMPONENT
from pipeline.serving.instance_reader import JointReader
from pipeline.serving.items.catalogue import ItemPiece
from pipeline.serving.items.failing_rows import without_failing
from pipeline.serving.items.scorer import Scorer
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica

_HINT = "hint: check the weights of the model"


@dataclass(frozen=True)
class EmbeddedItems:
    """n items as a version has them."""

    ids: UInt64s
    """[n]"""
    vectors: Float32s
    """[n, dim]"""
    attributes: UInt64s
    """[n]"""
    parts: Float32s | None
    """[n, d] what they decide of the scores; None without a scorer."""

    @classmethod
    def concatenated(cls, some: Sequence["EmbeddedItems"]) -> "EmbeddedItems":
        """The items of all of `some`, at least one, in order."""
        if len(some) == 1:
            return some[0]
        parts = [each.parts for each in some if each.parts is not None]
        return cls(
            np.concatenate([each.ids for each in some]),
            np.concatenate([each.vectors for each in some]),
            np.concatenate([each.attributes for each in some]),
            np.concatenate(parts) if parts else None,
        )

    def take(self, rows: Bools | Int64s) -> "EmbeddedItems":
        """The items at `rows`: [k] int64, or [n] whether it is one."""
        parts = None if self.parts is None else self.parts[rows]
        return EmbeddedItems(self.ids[rows], self.vectors[rows], self.attributes[rows], parts)


@dataclass(frozen=True)
class Embedding:
    """What a version has computed of n items."""

    items: EmbeddedItems | None
    """Those that an index can hold; None if there are none."""
    problems: dict[int, str]
    """By row of the others, what is wrong."""


class ItemEmbedder:
    """Reads rows as they are in the replica. Not thread-safe."""

    def __init__(self, project: Project, replica: Replica, attribute_columns: Collection[str] = ()) -> None:
        """Build the item tower, and the scorer if there is one; attributes of items depend on `attribute_columns`.

        Raises ConfigError and ModelError.
        """
        config, root, towers, recall = project.config, project.root, project.config.towers, project.config.recall
        assert towers is not None, "[recall] requires two towers"
        assert recall is not None, "the project has no [recall]"
        self._replica = replica
        self._tower = Predictor(config, root, (towers.item,))
        own = {towers.item_column, *attribute_columns, *recall.item_columns}
        self.columns = (*self._tower.columns, *sorted(own - {*self._tower.columns}))
        """The raw columns of items: the item's name, and what item tower, attributes or the setting read."""
        self.scorer = None if recall.scorer is None else Scorer(config, root, recall.scorer, self.columns)
        """The scorer with the weights that were loaded last."""
        halves = [] if self.scorer is None else [self.scorer.items.config]
        self.reader = JointReader(config, root, [self._tower.config, *halves])
        """Reads the features of items."""

    def load(self, dense: bytes) -> None:
        """Replace the dense weights. Raises DamagedError or ModelError."""
        self._tower.load(dense)
        if self.scorer is not None:
            self.scorer.load(dense)

    def embed(self, names: Sequence[ItemName], piece: ItemPiece) -> Embedding:
        """The items of a piece, and their names, by the rows as they are in the replica.

        An item is left out if its vector or its part of the scorer is not finite, or the model fails for it alone.
        """
        problems: dict[int, str] = {}
        runs = without_failing(
            range(len(piece.ids)),
            lambda rows: self._computed(piece, rows),
            (ModelError,),
            lambda row, failure: problems.update({row: f"item {names[row]!r}: {failure}"}),
        )
        if not runs:
            return Embedding(None, problems)
        found = EmbeddedItems.concatenated([items for _, items in runs])
        rows = [row for run, _ in runs for row in run]
        valid = finite(found.vectors) & _finite_parts(found)
        for place in np.flatnonzero(~valid).tolist():
            problems[rows[place]] = _problem(found.vectors[place], names[rows[place]])
        return Embedding(found if valid.all() else found.take(valid) if valid.any() else None, problems)

    def _computed(self, piece: ItemPiece, rows: range) -> EmbeddedItems:
        places = np.arange(rows.start, rows.stop)
        items = piece.items if len(rows) == len(piece.ids) else piece.items.take(places)
        with self._replica.reading():
            vectors = self._tower.predict(self.reader.of(items.features, 0), self._replica.lookup)
            parts = None
            if self.scorer is not None:
                parts = self.scorer.items.parts(self.reader.of(items.features, 1), self._replica.lookup)
        return EmbeddedItems(piece.ids[places], vectors, items.attributes, parts)


def finite(vectors: Float32s) -> Bools:
    """[n] whether an index can hold a vector."""
    return np.asarray((np.abs(vectors) <= MAX_COMPONENT).all(axis=1), np.bool_)


def require_finite(vectors: Float32s, what: str, names: Sequence[ItemName]) -> None:
    """Raise ModelError for a vector that the index cannot hold: that of `what` and its name."""
    invalid = np.flatnonzero(~finite(vectors))
    if len(invalid):
        raise ModelError(_vector_problem(vectors[invalid[0]], what, names[int(invalid[0])]))


def _finite_parts(items: EmbeddedItems) -> Bools:
    """[n] whether scores follow from the part of an item."""
    if items.parts is None:
        return np.ones(len(items.ids), np.bool_)
    return np.asarray(np.isfinite(items.parts).all(axis=1), np.bool_)


def _problem(vector: Float32s, name: ItemName) -> str:
    """What is wrong with an item by its vector [dim], or else by its part."""
    if not finite(vector[np.newaxis])[0]:
        return _vector_problem(vector, "item", name)
    return f"what item {name!r} decides of the scores is not finite. {_HINT}"


def _vector_problem(vector: Float32s, what: str, name: ItemName) -> str:
    problem = "exceeds 2^40" if np.isfinite(vector).all() else "is not finite"
    return f"the vector of {what} {name!r} {problem}: {vector.tolist()[:4]}. {_HINT}"
