"""The tree of items for recall: layers of nodes that a search descends with a wide beam. Wraps
`native/recall/tree/item_tree`.

The tree has no scores: who searches scores nodes and items, and asks what lies below the best.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import Float32s, UInt32s, UInt64s
from pipeline.errors import InputError
from pipeline.recall.item_filter import ItemFilter
from pipeline.recall.scan_index import MAX_ATTRIBUTES, MAX_COMPONENT, MAX_DIM

_EVERYTHING = ItemFilter()
_NOTHING: UInt64s = np.empty(0, np.uint64)


@dataclass(frozen=True)
class TreeShape:
    """How wide and high a tree is.

    Attributes:
        fan_out: nodes below a node, and items below one of the last layer.
        layers: of nodes; the first has items / fan_out^layers.
    """

    fan_out: int = 16
    layers: int = 2


class ItemTree:
    """Items below layers of nodes. Not thread-safe; concurrent searches are.

    An item has a place: the number of its row in arrays that the caller keeps. So has a node: its number.

    >>> vectors = np.array([[1, 0], [2, 0], [-1, 0], [-2, 0]], np.float32)
    >>> tree = ItemTree(np.arange(4, dtype=np.uint64), vectors, np.zeros(4, np.uint64), TreeShape(2, 1))
    >>> tree.layers
    (range(0, 2),)
    >>> nodes, scores = np.array([0, 1], np.uint32), np.array([0, 5], np.float32)
    >>> tree.items_below(nodes, scores, 1).tolist()
    [0, 1]
    """

    def __init__(self, ids: UInt64s, vectors: Float32s, attributes: UInt64s, shape: TreeShape) -> None:
        """Build the tree of items; item i has place i.

        Args:
            ids: [n] uint64, each once.
            vectors: [n, dim] float32, finite and at most 2^40 in magnitude, dim 1..512.
            attributes: [n] uint64, bit a of an item that has attribute a.
            shape: fan_out 2..1,024, layers 1..4.
        """
        require_integer("fan_out", shape.fan_out, 2, 1_024)
        require_integer("layers", shape.layers, 1, 4)
        require_array("ids", ids, np.uint64, ("n",))
        require_array("vectors", vectors, np.float32, (len(ids), "dim"))
        require_integer("dim", vectors.shape[1], 1, MAX_DIM)
        self.dim = vectors.shape[1]
        self._require_items(ids, vectors, attributes)
        if len(np.unique(ids)) != len(ids):
            raise InputError(f"ids: got {len(ids)}, of which {len(np.unique(ids))} are different")
        self._core: Any = _native.ItemTree(ids, vectors, attributes, int(shape.fan_out), int(shape.layers))
        begins = self._core.layer_begins().tolist()
        self.layers = tuple(range(begin, end) for begin, end in pairwise(begins))
        """The numbers of the nodes of each layer, the first on top."""

    @property
    def places(self) -> int:
        """The places of items are below it; those of `n` new items are below this + n."""
        return int(self._core.places)

    def nearest(self, vectors: Float32s) -> UInt32s:
        """[n] uint32: for each vector [n, dim], the node of the last layer that is reached by the nearest centres."""
        self._require_vectors(vectors, "n")
        nodes: UInt32s = self._core.nearest(vectors)
        return nodes

    def put(self, ids: UInt64s, nodes: UInt32s, attributes: UInt64s) -> UInt32s:
        """Insert or replace items below nodes [n] uint32 of the last layer; returns their places, [n] uint32.

        The last one of a repeated id counts.
        """
        require_array("ids", ids, np.uint64, ("n",))
        require_array("nodes", nodes, np.uint32, (len(ids),))
        require_array("attributes", attributes, np.uint64, (len(ids),))
        self._require_of_one_layer(nodes, self.layers[-1:])
        places: UInt32s = self._core.put(ids, nodes, attributes)
        return places

    def remove(self, ids: UInt64s) -> int:
        """Remove items ([n] uint64); returns how many of the ids existed."""
        require_array("ids", ids, np.uint64, ("n",))
        return int(self._core.remove(ids))

    def nodes_below(self, nodes: UInt32s, scores: Float32s, beam: int) -> UInt32s:
        """[m] uint32, ascending: the children of the best `beam` of nodes [n] by scores [n], of equal ones the lower.

        Raises InputError for nodes that are not of one layer above the last.
        """
        self._require_nodes(nodes, scores, beam, self.layers[:-1])
        below: UInt32s = self._core.nodes_below(nodes, scores, int(beam))
        return below

    def items_below(
        self,
        nodes: UInt32s,
        scores: Float32s,
        beam: int,
        filter: ItemFilter = _EVERYTHING,
        excluded: UInt64s = _NOTHING,
    ) -> UInt32s:
        """[m] uint32: the places of the items below the best `beam` of nodes of the last layer that may be found."""
        self._require_nodes(nodes, scores, beam, self.layers[-1:])
        require_array("excluded", excluded, np.uint64, ("m",))
        words = np.array(filter.words(MAX_ATTRIBUTES), np.uint64)
        places: UInt32s = self._core.items_below(nodes, scores, int(beam), words, np.sort(excluded))
        return places

    def ids(self, places: UInt32s) -> UInt64s:
        """[n] uint64: the ids of the items at places that `items_below` has returned since the last change."""
        require_array("places", places, np.uint32, ("n",))
        if len(places) and int(places.max()) >= self.places:
            raise InputError(f"places: got {int(places.max())}, the tree has {self.places}")
        found = np.empty(len(places), np.uint64)
        self._core.ids(places, found)
        return found

    def means(self, rows: Float32s) -> Float32s:
        """[nodes, d]: of each node, the mean of the rows [places, d] of the items below it; zeros if there are none."""
        require_array("rows", rows, np.float32, ("places", "d"))
        if len(rows) < self.places:
            raise InputError(f"rows: got {len(rows)}, the tree has {self.places} places")
        found = np.empty((self.layers[-1].stop, rows.shape[1]), np.float32)
        self._core.means(rows, found)
        return found

    def digest(self) -> int:
        """A number that trees built from equal items, and changed alike since, have."""
        return int(self._core.digest())

    def __len__(self) -> int:
        return int(self._core.size)

    @property
    def memory_bytes(self) -> int:
        """Memory of nodes and places."""
        return int(self._core.memory_bytes)

    def _require_items(self, ids: UInt64s, vectors: Float32s, attributes: UInt64s) -> None:
        require_array("ids", ids, np.uint64, ("n",))
        require_array("attributes", attributes, np.uint64, (len(ids),))
        self._require_vectors(vectors, len(ids))

    def _require_vectors(self, vectors: Float32s, n: int | str) -> None:
        require_array("vectors", vectors, np.float32, (n, self.dim))
        invalid = np.argwhere(~(np.abs(vectors) <= MAX_COMPONENT))
        if len(invalid):
            row, column = invalid[0]
            got = vectors[row, column]
            raise InputError(f"vectors[{row}, {column}]: got {got}, wanted a finite number of at most 2^40")

    def _require_nodes(self, nodes: UInt32s, scores: Float32s, beam: int, layers: tuple[range, ...]) -> None:
        require_array("nodes", nodes, np.uint32, ("n",))
        require_array("scores", scores, np.float32, (len(nodes),))
        require_integer("beam", beam, 1, 2**24)
        self._require_of_one_layer(nodes, layers)

    def _require_of_one_layer(self, nodes: UInt32s, layers: tuple[range, ...]) -> None:
        low, high = (int(nodes.min()), int(nodes.max())) if len(nodes) else (0, 0)
        if len(nodes) and not any(low in layer and high in layer for layer in layers):
            raise InputError(f"nodes: got {low}..{high}, the layers are {', '.join(map(str, layers)) or 'none'}")
