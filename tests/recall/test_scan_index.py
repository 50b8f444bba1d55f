"""Searches of the scan index against NumPy: sizes, dims, ks, ties, extremes, filters; the same at every SIMD level."""

import numpy as np
import pytest

from pipeline.recall.item_filter import ItemFilter
from pipeline.recall.scan_index import SampleRule, ScanIndex
from tests.support.reference.scan_scores import best_of, scores_of
from tests.support.simd import forced_simd_level, simd_levels

SHAPES = (
    # items, dim, k
    (1, 1, 1),
    (15, 3, 20),
    (1_024, 16, 100),
    (1_025, 17, 1_024),
    (5_000, 64, 10),
    (30_000, 32, 1_000),
    (700, 512, 50),
)


def drawn(random, shape):
    return random.standard_normal(shape).astype(np.float32)


def index_of(vectors, ids=None, **options):
    index = ScanIndex(vectors.shape[1], **options)
    index.put(np.arange(len(vectors), dtype=np.uint64) if ids is None else ids, vectors)
    return index


def assert_exact(index, queries, vectors, ids, k, **options):
    found = index.search(queries, k, **options)
    for row, scores in enumerate(scores_of(queries, vectors)):
        best, best_scores = best_of(scores, ids, k)
        assert found.counts[row] == len(best)
        assert found.ids[row, : len(best)].tolist() == best.tolist()
        assert found.scores[row, : len(best)].tolist() == best_scores.tolist()
        assert not found.ids[row, len(best) :].any()
        assert np.isneginf(found.scores[row, len(best) :]).all()


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize(("items", "dim", "k"), SHAPES)
def test_the_best_items_are_found_at_every_level(level, items, dim, k):
    random = np.random.default_rng(items)
    vectors, queries = drawn(random, (items, dim)), drawn(random, (11, dim))
    ids = random.permutation(np.arange(items, dtype=np.uint64) << np.uint64(49))
    with forced_simd_level(level):
        assert_exact(index_of(vectors, ids), queries, vectors, ids, k)


@pytest.mark.parametrize("batch", [0, 1, 2, 3, 5, 8, 9])
def test_a_query_finds_the_same_in_a_batch_of_any_size(batch):
    random = np.random.default_rng(batch)
    index, queries = index_of(drawn(random, (3_000, 24))), drawn(random, (batch, 24))
    together = index.search(queries, 50)
    alone = [index.search(queries[i : i + 1], 50) for i in range(batch)]
    assert together.ids.tolist() == [found.ids[0].tolist() for found in alone]
    assert together.scores.tolist() == [found.scores[0].tolist() for found in alone]


KINDS = {
    "ties": lambda random, shape: random.integers(-1, 2, shape),
    "equal": lambda random, shape: np.ones(shape),
    "ends of the codes": lambda random, shape: random.choice([-127, 127], shape),
    "halves between codes": lambda random, shape: random.integers(-254, 255, shape) / 2,
    "zeros": lambda random, shape: np.zeros(shape),
    "one component": lambda random, shape: np.where(np.arange(shape[1]) == 1, random.standard_normal(shape), 0),
    "any magnitude": lambda random, shape: np.ldexp(random.choice([-1.5, 1.5], shape), random.integers(-60, 39, shape)),
    "greatest": lambda random, shape: random.choice([-(2.0**40), 2.0**40], shape),
    "least": lambda random, shape: random.choice([-(2.0**-40), 2.0**-40], shape),
    "negative": lambda random, shape: -np.abs(random.standard_normal(shape)),
}


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_vectors_are_ordered_by_score_and_id(level, kind):
    random = np.random.default_rng(3)
    vectors = KINDS[kind](random, (2_000, 20)).astype(np.float32)
    queries = np.concatenate([KINDS[kind](random, (3, 20)).astype(np.float32), np.zeros((1, 20), np.float32)])
    ids = random.permutation(2_000).astype(np.uint64)
    with forced_simd_level(level):
        index = index_of(vectors, ids, rule=SampleRule(expected=2, least_stride=1))
        for k in (1, 40, 1_999):
            assert_exact(index, queries, vectors, ids, k)


def test_an_unfortunate_sample_costs_a_second_pass_and_no_item():
    vectors = np.arange(40_000, dtype=np.float32)[:, None]
    ids = np.arange(40_000, dtype=np.uint64)
    index, query = index_of(vectors, ids, rule=SampleRule(expected=1, least_stride=1)), np.ones((1, 1), np.float32)
    passes = [int(index.search(query, k).passes[0]) for k in range(1, 200)]
    assert min(passes) == 1
    assert max(passes) > 1
    for k in np.flatnonzero(np.array(passes) > 1)[:3] + 1:
        assert_exact(index, query, vectors, ids, int(k))


def test_scores_are_close_to_inner_products():
    random = np.random.default_rng(5)
    vectors, queries = drawn(random, (20_000, 64)), drawn(random, (8, 64))
    found = index_of(vectors).search(queries, 1_000)
    exact = queries @ vectors.T
    chosen = np.take_along_axis(exact, found.ids.astype(np.int64), axis=1)
    assert np.abs(found.scores - chosen).max() < 2e-3
    best = np.argpartition(-exact, 1_000, axis=1)[:, :1_000]
    shared = [len(set(a) & set(b)) for a, b in zip(found.ids.tolist(), best.tolist(), strict=True)]
    assert np.mean(shared) >= 999


class TestFilters:
    random = np.random.default_rng(7)
    vectors, queries = drawn(random, (6_000, 16)), drawn(random, (3, 16))
    ids = random.permutation(6_000).astype(np.uint64)
    attributes = random.integers(0, 2**20, 6_000).astype(np.uint64)

    def index(self):
        index = ScanIndex(16, attributes=20)
        index.put(self.ids, self.vectors, self.attributes)
        return index

    @pytest.mark.parametrize("level", simd_levels())
    @pytest.mark.parametrize(
        "chosen",
        [
            ItemFilter(all_of=frozenset({3})),
            ItemFilter(any_of=frozenset({0, 19})),
            ItemFilter(none_of=frozenset({1, 2})),
            ItemFilter(frozenset({4, 5}), frozenset({6, 7}), frozenset({8})),
            ItemFilter(all_of=frozenset(range(20))),
            ItemFilter(frozenset({1}), frozenset(), frozenset({1})),
        ],
    )
    def test_only_items_that_pass_are_found(self, level, chosen):
        all_of, any_of, none_of = (np.uint64(word) for word in chosen.words(20))
        passing = (self.attributes & all_of == all_of) & (self.attributes & none_of == 0)
        passing &= (self.attributes & any_of != 0) | (any_of == 0)
        with forced_simd_level(level):
            for k in (10, 500):
                assert_exact(
                    self.index(), self.queries, self.vectors[passing], self.ids[passing], k, filters=[chosen] * 3
                )

    def test_each_query_of_a_batch_has_its_own_filter_and_exclusions(self):
        index = self.index()
        filters = [ItemFilter(), ItemFilter(all_of=frozenset({0})), ItemFilter(none_of=frozenset({0}))]
        plain = index.search(self.queries, 30).ids
        excluded = [plain[0][:20].copy(), np.array([2**60], np.uint64), np.empty(0, np.uint64)]
        found = index.search(self.queries, 10, filters=filters, excluded=excluded)
        assert found.ids[0].tolist() == plain[0][20:].tolist()
        for row, one in ((1, 1), (2, 0)):
            alone = index.search(self.queries[row : row + 1], 10, filters=[filters[row]])
            assert found.ids[row].tolist() == alone.ids[0].tolist()
            chosen = self.attributes[np.argsort(self.ids)[found.ids[row].astype(np.int64)]]
            assert (chosen & np.uint64(1) == one).all()

    def test_items_are_found_by_the_attributes_of_their_last_put(self):
        index = self.index()
        index.put(self.ids, self.vectors, np.zeros(6_000, np.uint64))
        assert index.search(self.queries[:1], 5, filters=[ItemFilter(any_of=frozenset(range(20)))]).counts[0] == 0

    def test_many_exclusions_leave_the_next_best(self):
        index = self.index()
        order = index.search(self.queries[:1], 6_000).ids[0]
        found = index.search(self.queries[:1], 100, excluded=[order[:4_000].copy()])
        assert found.ids[0].tolist() == order[4_000:4_100].tolist()
