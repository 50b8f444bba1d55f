"""Items below a tree of nodes, which the scorer descends with a wide beam (`pipeline/recall/item_tree.py`).

A node is scored as an item is: by the mean of what the items below it decide of the scores. Both follow from the rows
of the served version, so nothing of a tree is published.
"""

from collections.abc import Callable, Iterable

import numpy as np

from pipeline.arrays.types import Float32s, UInt64s
from pipeline.configuration.deployment.recall import Tree
from pipeline.recall.item_rows import with_room, with_rows
from pipeline.recall.item_tree import ItemTree, TreeShape
from pipeline.serving.items.attributes import Allowed
from pipeline.serving.items.embedder import EmbeddedItems
from pipeline.serving.items.item_index import Found, Users, best_of, joined, with_direction
from pipeline.serving.items.scorer import Scorer

_CHANGED = 0.25
"""A tree is built anew once more items have joined or left it than this share of those it was built of."""


class TreeIndex:
    """An `ItemIndex`. New items join the nearest node; nodes stay as they were built until it is `outgrown`."""

    def __init__(self, items: Iterable[EmbeddedItems], dim: int, tree: Tree, *, normalised: bool) -> None:
        """Build the tree of `items`, each once, whose vectors have `dim` components."""
        self.dim, self._beam, self._normalised = dim, tree.beam, normalised
        nothing = (np.empty(0, np.uint64), np.empty((0, dim), np.float32), np.empty(0, np.uint64))
        some = [kept for each in items if (kept := with_direction(each, normalised)[0]) is not None]
        found = EmbeddedItems.concatenated(some or [EmbeddedItems(*nothing, np.empty((0, 0), np.float32))])
        some.clear()
        self._tree = ItemTree(found.ids, found.vectors, found.attributes, TreeShape(tree.fan_out, tree.layers))
        self._parts = _parts_of(found)
        """[places, d]"""
        self._node_parts = self._tree.means(self._parts)
        """[nodes, d]"""
        self._built, self._changed = len(found.ids), 0

    @property
    def outgrown(self) -> bool:
        return self._changed > _CHANGED * self._built

    def change(self, removed: UInt64s, put: EmbeddedItems | None) -> Callable[[], None]:
        kept, lost = with_direction(put, self._normalised)
        gone = np.concatenate([removed, lost])
        if kept is None:
            return lambda: self._remove(gone)
        nodes = self._tree.nearest(kept.vectors)
        if not self._node_parts.shape[1]:  # of a tree that was built without items
            self._node_parts = np.zeros((len(self._node_parts), _parts_of(kept).shape[1]), np.float32)
        self._parts = with_room(self._parts, self._tree.places + len(nodes), _parts_of(kept).shape[1])

        def make() -> None:
            self._remove(gone)
            places = self._tree.put(kept.ids, nodes, kept.attributes)
            self._parts = with_rows(self._parts, places, _parts_of(kept))
            self._changed += len(kept.ids)

        return make

    def _remove(self, ids: UInt64s) -> None:
        self._changed += self._tree.remove(ids)

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


def _parts_of(items: EmbeddedItems) -> Float32s:
    assert items.parts is not None, "recall.tree requires a scorer"
    return items.parts
