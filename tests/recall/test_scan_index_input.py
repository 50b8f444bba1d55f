"""Arguments that the scan index refuses, with nothing changed."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.recall.item_filter import ItemFilter
from pipeline.recall.scan_index import SampleRule, ScanIndex


def ids_of(*numbers):
    return np.array(numbers, np.uint64)


@pytest.fixture
def index():
    index = ScanIndex(3, attributes=2)
    index.put(ids_of(1, 2), np.eye(2, 3, dtype=np.float32), ids_of(1, 2))
    return index


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim: got 0, wanted an integer in 1..512"),
        ({"dim": 513}, "dim: got 513, wanted an integer in 1..512"),
        ({"dim": 8, "attributes": 65}, "attributes: got 65, wanted an integer in 0..64"),
        ({"dim": 8, "attributes": -1}, "attributes: got -1, wanted an integer in 0..64"),
        ({"dim": 8, "rule": SampleRule(expected=0)}, "expected: got 0, wanted an integer in 1..1048576"),
        ({"dim": 8, "rule": SampleRule(least_stride=0)}, "least_stride: got 0, wanted an integer in 1..1048576"),
    ],
)
def test_an_index_of_an_impossible_shape_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        ScanIndex(**options)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, np.float32(2.0**40 * 1.0000001), -3e38])
def test_vectors_that_are_not_finite_or_too_large_are_refused(index, wrong):
    before = index.digest()
    vectors = np.ones((600, 3), np.float32)
    vectors[599, 2] = wrong
    with pytest.raises(InputError, match=r"vectors\[599, 2\]: got .*, wanted a finite number of at most 2\^40"):
        index.put(np.arange(600, dtype=np.uint64), vectors)
    with pytest.raises(InputError, match=r"queries\[0, 2\]: got .*, wanted a finite number of at most 2\^40"):
        index.search(vectors[599:], 1)
    assert (len(index), index.digest()) == (2, before)


@pytest.mark.parametrize(
    ("ids", "vectors", "attributes", "message"),
    [
        (ids_of(1).astype(np.int64), np.ones((1, 3), np.float32), None, r"ids: got int64 \[1\], wanted uint64 \[n\]"),
        (ids_of(1), np.ones((1, 3)), None, r"vectors: got float64 \[1, 3\], wanted float32 \[1, 3\]"),
        (ids_of(1), np.ones((2, 3), np.float32), None, r"vectors: got float32 \[2, 3\], wanted float32 \[1, 3\]"),
        (ids_of(1), np.ones((1, 4), np.float32), None, r"vectors: got float32 \[1, 4\], wanted float32 \[1, 3\]"),
        (ids_of(1), np.ones((1, 3), np.float32), ids_of(1, 1), r"attributes: got uint64 \[2\], wanted uint64 \[1\]"),
        (ids_of(1, 5), np.ones((2, 3), np.float32), ids_of(3, 4), r"attributes\[1\]: got 0x4, the index has 2"),
    ],
)
def test_items_of_a_wrong_shape_are_refused(index, ids, vectors, attributes, message):
    before = index.digest()
    with pytest.raises(InputError, match=message):
        index.put(ids, vectors, attributes)
    assert index.digest() == before


def test_removed_ids_of_a_wrong_type_are_refused(index):
    with pytest.raises(InputError, match=r"ids: got list, wanted uint64 \[n\]"):
        index.remove([1])


ONE = np.ones((1, 3), np.float32)


@pytest.mark.parametrize(
    ("queries", "k", "options", "message"),
    [
        (ONE[0], 1, {}, r"queries: got float32 \[3\], wanted float32 \[n, 3\]"),
        (ONE[:, :2], 1, {}, r"queries: got float32 \[1, 2\].*, wanted float32 \[n, 3\]"),
        (ONE, 0, {}, r"k: got 0, wanted an integer in 1\.\.16777216"),
        (ONE, 2**24 + 1, {}, r"k: got 16777217"),
        (ONE, 1, {"filters": []}, "filters: got 0 for 1 queries, wanted one for each"),
        (ONE, 1, {"filters": [ItemFilter(all_of=frozenset({2}))]}, "filter: got attribute 2, the index has 2"),
        (ONE, 1, {"filters": [ItemFilter(none_of=frozenset({-1}))]}, "filter: got attribute -1, the index has 2"),
        (ONE, 1, {"excluded": [ids_of(1)] * 2}, "excluded: got 2 for 1 queries, wanted one for each"),
        (ONE, 1, {"excluded": [np.array([1])]}, r"excluded\[0\]: got int64 \[1\], wanted uint64 \[m\]"),
    ],
)
def test_impossible_searches_are_refused(index, queries, k, options, message):
    with pytest.raises(InputError, match=message):
        index.search(queries, k, **options)
