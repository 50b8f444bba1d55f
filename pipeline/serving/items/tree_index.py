"""Items below a tree of nodes, which the scorer descends with a wide beam (`pipeline/recall/item_tree.py`).

A node is scored as an item is: by the mean of what the items below it decide of the scores. Both follow from the rows
of the served version, so nothing of a tree is published.
"""

from collections.abc import Iterable

import numpy as np

from pipeline.arrays.types import Float32s, UInt64s
from pipeline.configuration.deployment.recall import Tree
from pipeline.recall.item_rows import with_rows
from pipeline.recall.item_tree import ItemTree, TreeShape
from pipeline.serving.items.attributes import Allowed
from pipeline.serving.items.embedder import EmbeddedItems
from pipeline.serving.items.item_index import Found, Users, best_of, joined, without_direction
from pipeline.serving.items.scorer import Scorer


class TreeIndex:
    """An `ItemIndex`. Between two versions new items join the nearest node; nodes stay as they were built."""

    def __init__(self, items: Iterable[EmbeddedItems], dim: int, tree: Tree, *, normalised: bool) -> None:
        """Build the tree of `items`, each once, whose vectors have `dim` components."""
        self.dim, self._beam, self._normalised = dim, tree.beam, normalised
        kept = [self._kept(some) for some in items]
        ids = np.concatenate([np.empty(0, np.uint64), *(some.ids for some in kept)])
        vectors = np.concatenate([np.empty((0, dim), np.float32), *(some.vectors for some in kept)])
        attributes = np.concatenate([np.empty(0, np.uint64), *(some.attributes for some in kept)])
        self._tree = ItemTree(ids, vectors, attributes, TreeShape(tree.fan_out, tree.layers))
        del vectors
        parts = [_parts_of(some) for some in kept]
        self._parts = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
        """[places, d]"""
        self._node_parts = self._tree.means(self._parts)
        """[nodes, d]"""

    def put(self, items: EmbeddedItems) -> None:
        kept = self._kept(items)
        self._tree.remove(np.setdiff1d(items.ids, kept.ids))
        places = self._tree.put(kept.ids, kept.vectors, kept.attributes)
        self._parts = with_rows(self._parts, places, _parts_of(kept))
        if not self._node_parts.shape[1]:  # of a tree that was built without items
            self._node_parts = np.zeros((len(self._node_parts), self._parts.shape[1]), np.float32)

    def remove(self, ids: UInt64s) -> None:
        self._tree.remove(ids)

    def find(self, users: Users, scorer: Scorer | None, k: int, allowed: Allowed) -> Found:
        assert scorer is not None, "recall.tree requires a scorer"
        assert users.parts is not None, "recall.tree requires a scorer"
        return joined(self._found(user, scorer, k, allowed) for user in users.parts)

    def __len__(self) -> int:
        return len(self._tree)

    def _found(self, user: Float32s, scorer: Scorer, k: int, allowed: Allowed) -> tuple[UInt64s, Float32s]:
        if not len(self):
            return np.empty(0, np.uint64), np.empty(0, np.float32)
        first, *further = self._tree.layers
        nodes = np.arange(first.start, first.stop, dtype=np.uint32)
        scores = scorer.scores(user, self._node_parts[: first.stop])
        for _ in further:
            nodes = self._tree.nodes_below(nodes, scores, self._beam)
            scores = scorer.scores(user, self._node_parts[nodes])
        places = self._tree.items_below(nodes, scores, self._beam, allowed.filter, allowed.excluded)
        return best_of(self._tree.ids(places), scorer.scores(user, self._parts[places]), k)

    def _kept(self, items: EmbeddedItems) -> EmbeddedItems:
        """The items that are not withheld."""
        kept = ~without_direction(items.vectors, self._normalised)
        if kept.all():
            return items
        parts = None if items.parts is None else items.parts[kept]
        return EmbeddedItems(items.ids[kept], items.vectors[kept], items.attributes[kept], parts)


def _parts_of(items: EmbeddedItems) -> Float32s:
    assert items.parts is not None, "recall.tree requires a scorer"
    return items.parts
