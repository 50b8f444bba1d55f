"""What a version computes of items: their vectors by the item tower, and their parts of the scorer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays.types import Bools, Float32s, UInt64s
from pipeline.configuration.project import Project
from pipeline.errors import ModelError
from pipeline.features.plan import Features
from pipeline.recall.item_changes import ItemName
from pipeline.recall.scan_index import MAX_COMPONENT
from pipeline.serving.instance_reader import JointReader
from pipeline.serving.items.scorer import Scorer
from pipeline.serving.predictor import Predictor
from pipeline.serving.replica import Replica


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


class ItemEmbedder:
    """Reads rows as they are in the replica. Not thread-safe."""

    def __init__(self, project: Project, replica: Replica) -> None:
        """Build the item tower, and the scorer if there is one. Raises ConfigError and ModelError."""
        config, root, towers, recall = project.config, project.root, project.config.towers, project.config.recall
        assert towers is not None, "[recall] requires two towers"
        assert recall is not None, "the project has no [recall]"
        self._replica = replica
        self._tower = Predictor(config, root, (towers.item,))
        self.columns = self._tower.columns
        """The raw columns that the item tower depends on."""
        self._scorer = None if recall.scorer is None else Scorer(config, root, recall.scorer, self.columns)
        halves = [] if self._scorer is None else [self._scorer.items.config]
        self.reader = JointReader(config, root, [self._tower.config, *halves])
        """Reads the features of items."""

    def load(self, dense: bytes) -> None:
        """Replace the dense weights. Raises DamagedError or ModelError."""
        self._tower.load(dense)
        if self._scorer is not None:
            self._scorer.load(dense)

    def vectors(self, features: Features) -> Float32s:
        """[n, dim] float32, of what `reader` has read of n items; they may be not finite. Raises ModelError."""
        with self._replica.reading():
            return self._tower.predict(self.reader.of(features, 0), self._replica.lookup)

    def parts(self, features: Features) -> Float32s | None:
        """[n, d] float32: what items decide of the scores; None without a scorer. Raises ModelError."""
        if self._scorer is None:
            return None
        with self._replica.reading():
            return self._scorer.items.parts(self.reader.of(features, 1), self._replica.lookup)


def finite(vectors: Float32s) -> Bools:
    """[n] whether an index can hold a vector."""
    return np.asarray((np.abs(vectors) <= MAX_COMPONENT).all(axis=1), np.bool_)


def require_finite(vectors: Float32s, what: str, names: Sequence[ItemName]) -> None:
    """Raise ModelError for a vector that the index cannot hold: that of `what` and its name."""
    invalid = np.flatnonzero(~finite(vectors))
    if len(invalid):
        row = int(invalid[0])
        problem = "exceeds 2^40" if np.isfinite(vectors[row]).all() else "is not finite"
        hint = "hint: check the weights of the model"
        raise ModelError(f"the vector of {what} {names[row]!r} {problem}: {vectors[row].tolist()[:4]}. {hint}")
