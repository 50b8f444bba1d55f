"""Changes of the scan index against a dict; memory after churn; the digest; searches during changes."""

import threading

import numpy as np
import pytest
import xxhash

from pipeline.recall.item_filter import ItemFilter
from pipeline.recall.scan_index import ScanIndex
from tests.support.reference.scan_scores import best_of, codes_of, scores_of
from tests.support.simd import forced_simd_level, simd_levels

DIM, ATTRIBUTES = 20, 2


def vectors_of(random, n):
    return random.standard_normal((n, DIM)).astype(np.float32)


def digest_of(model):
    """As `native/recall/scan/scan_index.h` defines it."""
    total = 0
    for item, (vector, attributes) in model.items():
        upper, lower, scale = codes_of(vector[None])
        content = scale.tobytes() + int(attributes).to_bytes(8, "little")
        content += upper.astype(np.int8).tobytes() + lower.astype(np.int8).tobytes()
        total += xxhash.xxh64_intdigest(content, item)
    return total % 2**64


def assert_equal(index, model, random):
    assert len(index) == len(model)
    if not model:
        return
    ids = np.array(list(model), np.uint64)
    vectors = np.stack([vector for vector, _ in model.values()])
    queries = vectors_of(random, 3)
    found = index.search(queries, 50)
    for row, scores in enumerate(scores_of(queries, vectors)):
        best, best_scores = best_of(scores, ids, 50)
        assert found.ids[row, : len(best)].tolist() == best.tolist()
        assert found.scores[row, : len(best)].tolist() == best_scores.tolist()
    with_first = index.search(queries[:1], len(model), filters=[ItemFilter(all_of=frozenset({0}))])
    assert set(with_first.ids[0, : with_first.counts[0]].tolist()) == {i for i, (_, a) in model.items() if a & 1}


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_give_what_a_dict_gives(seed):
    random = np.random.default_rng(seed)
    index, model = ScanIndex(DIM, attributes=ATTRIBUTES), {}
    for step in range(60):
        n = int(random.integers(0, 600))
        ids = random.integers(0, 2_500, n).astype(np.uint64)
        if random.random() < (0.3 if step // 15 % 2 == 0 else 0.7):
            assert index.remove(ids) == sum(model.pop(item, None) is not None for item in ids.tolist())
        else:
            vectors, attributes = vectors_of(random, n), random.integers(0, 4, n).astype(np.uint64)
            index.put(ids, vectors, attributes)
            model.update(zip(ids.tolist(), zip(vectors, attributes.tolist(), strict=True), strict=True))
        if step % 6 == 5:
            assert_equal(index, model, random)
            assert index.digest() == digest_of(model)


def test_an_empty_index_finds_nothing():
    index = ScanIndex(DIM)
    found = index.search(np.ones((2, DIM), np.float32), 3)
    assert found.counts.tolist() == [0, 0]
    assert (len(index), index.digest(), index.remove(np.array([1], np.uint64))) == (0, 0, 0)


def test_memory_does_not_grow_when_items_are_replaced_by_others():
    random = np.random.default_rng(1)
    index, n = ScanIndex(DIM), 20_000
    index.put(np.arange(n, dtype=np.uint64), vectors_of(random, n))
    before = index.memory_bytes
    for first in range(n, 11 * n, 1_000):
        index.remove(np.arange(first - n, first - n + 1_000, dtype=np.uint64))
        index.put(np.arange(first, first + 1_000, dtype=np.uint64), vectors_of(random, 1_000))
    assert len(index) == n
    assert index.memory_bytes <= 1.05 * before
    assert index.search(vectors_of(random, 1), n).ids.min() == 10 * n


def test_the_digest_depends_on_items_and_not_on_history():
    random = np.random.default_rng(2)
    ids, vectors = np.arange(3_000, dtype=np.uint64), vectors_of(random, 3_000)
    straight, roundabout = ScanIndex(DIM, attributes=1), ScanIndex(DIM, attributes=1)
    ones = np.ones(3_000, np.uint64)
    straight.put(ids, vectors, ones)
    for some in np.array_split(random.permutation(3_000), 7):
        roundabout.put(ids[some] + np.uint64(1_000), vectors_of(random, len(some)))
        roundabout.put(ids[some], vectors[some], ones[some])
    roundabout.remove(np.arange(3_000, 5_000, dtype=np.uint64))
    roundabout.put(ids, vectors, ones)
    assert straight.digest() == roundabout.digest()
    straight.put(ids[:1], vectors[:1])
    assert straight.digest() != roundabout.digest()


def test_the_digest_is_the_same_at_every_level():
    vectors = vectors_of(np.random.default_rng(3), 100)
    found = set()
    for level in simd_levels():
        with forced_simd_level(level):
            index = ScanIndex(DIM)
            index.put(np.arange(100, dtype=np.uint64), vectors)
            found.add(index.digest())
    assert found == {digest_of({i: (vector, 0) for i, vector in enumerate(vectors)})}


def test_searches_during_changes_find_one_of_the_states_of_each_item():
    random = np.random.default_rng(4)
    index, n = ScanIndex(DIM), 5_000
    ids, states = np.arange(n, dtype=np.uint64), [vectors_of(random, n) for _ in range(2)]
    index.put(ids, states[0])
    query, done = vectors_of(random, 1), threading.Event()
    possible = [scores_of(query, vectors)[0] for vectors in states]

    def change():
        for turn in range(200):
            index.put(ids, states[turn % 2])
        done.set()

    writer = threading.Thread(target=change)
    writer.start()
    searches = 0
    while not done.is_set():
        found = index.search(query, 100)
        at = found.ids[0].astype(np.int64)
        assert ((found.scores[0] == possible[0][at]) | (found.scores[0] == possible[1][at])).all()
        searches += 1
    writer.join()
    assert searches > 0
    assert index.search(query, 100).ids[0].tolist() == best_of(possible[1], ids, 100)[0].tolist()
