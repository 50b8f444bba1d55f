"""The index of items for recall: the nearest by inner product, found by scoring all. Wraps
`native/recall/scan/scan_index`.

Vectors are held in two bytes per component, and results are exact for the scores of what is held. Nothing is built or
trained: a changed vector is found by the next search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import pipeline._native as _native
from pipeline.arrays.checks import require_array, require_integer
from pipeline.arrays.types import Float32s, Int64s, UInt64s
from pipeline.errors import InputError
from pipeline.recall.item_filter import ItemFilter

MAX_DIM = 512
MAX_ATTRIBUTES = 64
MAX_COMPONENT = 2.0**40


@dataclass(frozen=True)
class SampleRule:
    """How a search estimates the score that the best k items reach; results do not depend on it, only their cost.

    Attributes:
        expected: how many of the best k items the sample is expected to hold.
        least_stride: at most one block of sixteen items out of so many is sampled.
    """

    expected: int = 16
    least_stride: int = 32


@dataclass(frozen=True)
class Found:
    """The result of a search with n queries.

    Attributes:
        ids: [n, k] uint64, the best items first, of equal scores the lower id; 0 after the last one found.
        scores: [n, k] float32, descending; minus infinity after the last one found.
        counts: [n] int64, how many items were found: k, or all that the query may find.
        survivors: [n] int64, how many items were scored exactly.
        passes: [n] int64, how often all items were read; 1 unless a threshold was too high.
    """

    ids: UInt64s
    scores: Float32s
    counts: Int64s
    survivors: Int64s
    passes: Int64s


class ScanIndex:
    """Items by id: a vector and up to 64 attributes each.

    Thread-safe: searches run concurrently with each other and with changes. A search finds every item as it was at one
    moment of the search; it may see a part of a change.

    >>> index = ScanIndex(dim=2)
    >>> index.put(np.array([7, 8], np.uint64), np.array([[1, 0], [0, 1]], np.float32))
    >>> found = index.search(np.array([[0.5, 2]], np.float32), k=2)
    >>> found.ids.tolist(), found.scores.round(3).tolist()
    ([[8, 7]], [[2.0, 0.5]])
    """

    def __init__(self, dim: int, *, attributes: int = 0, rule: SampleRule | None = None) -> None:
        """An empty index.

        Args:
            dim: components of a vector, 1..512; memory and time are those of the next multiple of 16.
            attributes: how many attributes items have, 0..64.
            rule: of the samples; the default is right outside of measurements.
        """
        rule = rule or SampleRule()
        require_integer("dim", dim, 1, MAX_DIM)
        require_integer("attributes", attributes, 0, MAX_ATTRIBUTES)
        require_integer("expected", rule.expected, 1, 2**20)
        require_integer("least_stride", rule.least_stride, 1, 2**20)
        self.dim, self.attributes = int(dim), int(attributes)
        self._core: Any = _native.ScanIndex(self.dim, self.attributes, int(rule.expected), int(rule.least_stride))

    def put(self, ids: UInt64s, vectors: Float32s, attributes: UInt64s | None = None) -> None:
        """Insert or replace items; for an id that occurs twice, the last one counts.

        Args:
            ids: [n] uint64.
            vectors: [n, dim] float32, finite and at most 2^40 in magnitude. One without a component of 2^-40 counts
                as zero.
            attributes: [n] uint64, bit a of an item that has attribute a; none if not given.

        Raises:
            InputError: also for a vector out of range or an attribute that the index lacks. Nothing is changed.
        """
        require_array("ids", ids, np.uint64, ("n",))
        self._require_vectors("vectors", vectors, len(ids))
        if attributes is None:
            attributes = np.zeros(len(ids), np.uint64)
        require_array("attributes", attributes, np.uint64, (len(ids),))
        beyond = attributes >> np.uint64(self.attributes) if self.attributes < MAX_ATTRIBUTES else attributes[:0]
        if beyond.any():
            row = int(np.argmax(beyond != 0))
            raise InputError(
                f"attributes[{row}]: got {int(attributes[row]):#x}, the index has {self.attributes} attributes. "
                "hint: ScanIndex(attributes=…)"
            )
        self._core.put(ids, vectors, attributes)

    def remove(self, ids: UInt64s) -> int:
        """Remove items ([n] uint64); returns how many of the ids existed."""
        require_array("ids", ids, np.uint64, ("n",))
        return int(self._core.remove(ids))

    def search(
        self,
        queries: Float32s,
        k: int,
        *,
        filters: Sequence[ItemFilter] | None = None,
        excluded: Sequence[UInt64s] | None = None,
    ) -> Found:
        """The k items with the largest inner products, for each query; eight queries cost little more than one.

        Args:
            queries: [n, dim] float32, finite and at most 2^40 in magnitude.
            k: 1..2^24.
            filters: one per query; all items if not given.
            excluded: [m] uint64 per query, ids that it must not find; unknown ones have no effect.

        Raises:
            InputError: also for a query out of range, an attribute that the index lacks, and a list of another length.
        """
        self._require_vectors("queries", queries, "n")
        require_integer("k", k, 1, 2**24)
        n = len(queries)
        words = self._filter_words(filters, n)
        ids, offsets = _concatenated(excluded, n)
        found, scores = np.zeros((n, k), np.uint64), np.full((n, k), -np.inf, np.float32)
        costs = np.empty((n, 3), np.int64)
        self._core.search(queries, words, ids, offsets, found, scores, costs)
        return Found(found, scores, costs[:, 0], costs[:, 1], costs[:, 2])

    def digest(self) -> int:
        """A number that equal items give, whatever was put and removed before; reads the complete index."""
        return int(self._core.digest())

    def __len__(self) -> int:
        return int(self._core.size)

    @property
    def memory_bytes(self) -> int:
        """Memory of vectors, attributes and the index by id."""
        return int(self._core.memory_bytes)

    def _require_vectors(self, name: str, vectors: Float32s, n: int | str) -> None:
        require_array(name, vectors, np.float32, (n, self.dim))
        row = int(self._core.first_uncodable(vectors))
        if row < len(vectors):
            column = int(np.argmin(np.abs(vectors[row]) <= MAX_COMPONENT))
            raise InputError(
                f"{name}[{row}, {column}]: got {vectors[row, column]}, wanted a finite number of at most 2^40"
            )

    def _filter_words(self, filters: Sequence[ItemFilter] | None, n: int) -> UInt64s:
        """[n, 3] uint64: the sets of each filter."""
        if filters is None:
            return np.zeros((n, 3), np.uint64)
        if len(filters) != n:
            raise InputError(f"filters: got {len(filters)} for {n} queries, wanted one for each")
        return np.array([each.words(self.attributes) for each in filters], np.uint64).reshape(n, 3)


def _concatenated(excluded: Sequence[UInt64s] | None, n: int) -> tuple[UInt64s, Int64s]:
    """The ids of all queries, ascending for each, and [n + 1] where those of each query start."""
    if excluded is None:
        return np.empty(0, np.uint64), np.zeros(n + 1, np.int64)
    if len(excluded) != n:
        raise InputError(f"excluded: got {len(excluded)} for {n} queries, wanted one for each")
    for i, ids in enumerate(excluded):
        require_array(f"excluded[{i}]", ids, np.uint64, ("m",))
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum([len(ids) for ids in excluded], out=offsets[1:])
    return np.concatenate([np.sort(ids) for ids in excluded] or [np.empty(0, np.uint64)]), offsets
