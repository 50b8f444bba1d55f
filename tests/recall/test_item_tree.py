"""The tree of items: balanced layers, a beam over any scores, changes, filters, and refused input."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.recall.item_filter import ItemFilter
from pipeline.recall.item_tree import ItemTree, TreeShape


def vectors_of(n, dim=8, seed=1):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def tree_of(n, fan_out=4, layers=2, seed=1, attributes=None):
    ids = np.random.default_rng(seed).permutation(10 * n)[:n].astype(np.uint64)
    attributes = np.zeros(n, np.uint64) if attributes is None else attributes
    return ItemTree(ids, vectors_of(n, seed=seed), attributes, TreeShape(fan_out, layers)), ids


def below(tree, nodes):
    """Ids of the items below nodes of any one layer."""
    nodes = np.asarray(nodes, np.uint32)
    while nodes[0] not in tree.layers[-1]:
        nodes = tree.nodes_below(nodes, np.zeros(len(nodes), np.float32), len(nodes))
    return tree.ids(tree.items_below(nodes, np.zeros(len(nodes), np.float32), max(len(nodes), 1)))


@pytest.mark.parametrize(("fan_out", "layers"), [(2, 1), (4, 2), (3, 3), (16, 2), (1_024, 4)])
@pytest.mark.parametrize("n", [0, 1, 5, 64, 1_000])
def test_every_item_is_below_one_node_of_each_layer(n, fan_out, layers):
    tree, ids = tree_of(n, fan_out, layers)
    assert len(tree.layers) == layers
    assert len(tree) == n
    for depth, layer in enumerate(tree.layers):
        each = [below(tree, [node]).tolist() for node in layer]
        assert sorted(id for some in each for id in some) == sorted(ids.tolist())
        most = fan_out ** (layers - depth)
        assert len(layer) == 1 or max(map(len, each)) <= most
        assert n == 0 or min(map(len, each)) >= 1
        assert len(layer) >= max(1, n // most)


def test_items_of_a_node_are_nearer_to_each_other_than_to_others():
    random = np.random.default_rng(3)
    centres = 10 * random.standard_normal((16, 8))
    of = np.repeat(np.arange(16), 25)
    vectors = (centres[of] + random.standard_normal((400, 8))).astype(np.float32)
    tree = ItemTree(np.arange(400, dtype=np.uint64), vectors, np.zeros(400, np.uint64), TreeShape(25, 1))
    kinds = [len(np.unique(of[below(tree, [node]).astype(np.int64)])) for node in tree.layers[-1]]
    assert np.mean(kinds) <= 3  # medians cut through clusters; 13 at random


@pytest.mark.parametrize("beam", [1, 3, 20, 10_000])
def test_a_beam_finds_what_is_below_the_best_nodes(beam):
    tree, _ = tree_of(500)
    random = np.random.default_rng(5)
    nodes = random.permutation(np.arange(tree.layers[0].stop)).astype(np.uint32)
    scores = random.integers(0, 5, len(nodes)).astype(np.float32)
    best = nodes[np.lexsort((nodes, -scores))[:beam]]
    children = tree.nodes_below(nodes, scores, beam)
    assert children.tolist() == sorted(children.tolist())
    assert sorted(below(tree, children).tolist()) == sorted(below(tree, best).tolist())
    scores = random.standard_normal(len(children)).astype(np.float32)
    best = children[np.lexsort((children, -scores))[:beam]]
    found = tree.ids(tree.items_below(children, scores, beam))
    assert sorted(found.tolist()) == sorted(below(tree, best).tolist())


def test_filters_and_exclusions_leave_items_out():
    attributes = np.random.default_rng(2).integers(0, 8, 300).astype(np.uint64)
    tree, ids = tree_of(300, attributes=attributes)
    nodes = np.array(tree.layers[-1], np.uint32)
    zeros, excluded = np.zeros(len(nodes), np.float32), ids[:50][::-1].copy()
    words = ItemFilter(all_of=frozenset({0}), any_of=frozenset({1, 2}), none_of=frozenset({63}))
    found = tree.ids(tree.items_below(nodes, zeros, len(nodes), words, excluded))
    allowed = (attributes & 1 == 1) & (attributes & 6 != 0) & ~np.isin(ids, excluded)
    assert sorted(found.tolist()) == sorted(ids[allowed].tolist())


def test_changes_are_those_of_a_dict():
    tree, ids = tree_of(40)
    random, wanted = np.random.default_rng(7), dict.fromkeys(ids.tolist(), 0)
    nodes = np.array(tree.layers[-1], np.uint32)
    zeros = np.zeros(len(nodes), np.float32)
    for _ in range(200):
        some = random.choice(60, 4).astype(np.uint64)
        if random.random() < 0.5:
            assert tree.remove(some) == len({*some.tolist()} & wanted.keys())
            for id in some.tolist():
                wanted.pop(id, None)
        else:
            attributes = random.integers(0, 4, 4).astype(np.uint64)
            places = tree.put(some, tree.nearest(vectors_of(4, seed=int(some.sum()))), attributes)
            assert tree.ids(places).tolist() == some.tolist()
            wanted |= zip(some.tolist(), attributes.tolist(), strict=True)
        for attribute in range(2):
            words = ItemFilter(all_of=frozenset({attribute}))
            found = tree.ids(tree.items_below(nodes, zeros, len(nodes), words))
            assert sorted(found.tolist()) == sorted(id for id, word in wanted.items() if word >> attribute & 1)
        assert len(tree) == len(wanted)
    assert tree.layers == tree_of(40)[0].layers


def test_a_new_item_joins_the_node_with_the_nearest_centre():
    vectors, layer = vectors_of(500), TreeShape(8, 1)
    tree = ItemTree(np.arange(500, dtype=np.uint64), vectors, np.zeros(500, np.uint64), layer)
    held = [below(tree, [node]).astype(np.int64) for node in tree.layers[-1]]
    centres = np.stack([vectors[items].mean(axis=0) for items in held])
    new = vectors_of(50, seed=2)
    tree.put(np.arange(1_000, 1_050, dtype=np.uint64), tree.nearest(new), np.zeros(50, np.uint64))
    nearest = ((new[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    for node in tree.layers[-1]:
        wanted = {*held[node].tolist()} | {1_000 + i for i in np.flatnonzero(nearest == node).tolist()}
        assert {*below(tree, [node]).tolist()} == wanted


def test_nodes_have_the_means_of_the_items_below():
    tree, ids = tree_of(200)
    rows = vectors_of(200, dim=3, seed=9)
    means, by_id = tree.means(rows), dict(zip(ids.tolist(), rows, strict=True))
    for layer in tree.layers:
        for node in layer:
            wanted = np.mean([by_id[id] for id in below(tree, [node]).tolist()], axis=0)
            np.testing.assert_allclose(means[node], wanted, rtol=1e-5, atol=1e-6)
    assert (tree_of(0)[0].means(np.empty((0, 3), np.float32)) == 0).all()


def test_equal_histories_give_equal_digests_and_others_do_not():
    def changed(*, remove):
        tree, ids = tree_of(100)
        tree.put(np.array([5_000], np.uint64), tree.nearest(vectors_of(1)), np.ones(1, np.uint64))
        tree.remove(ids[:remove])
        return tree.digest()

    assert changed(remove=10) == changed(remove=10)
    assert changed(remove=10) != changed(remove=11)
    assert tree_of(100)[0].digest() != tree_of(100, seed=2)[0].digest()


def test_equal_vectors_are_divided_by_their_places():
    vectors = np.ones((64, 4), np.float32)
    tree = ItemTree(np.arange(64, dtype=np.uint64), vectors, np.zeros(64, np.uint64), TreeShape(4, 2))
    assert [len(below(tree, [node])) for node in tree.layers[-1]] == [4] * 16


def test_wrong_input_is_refused():
    tree, ids = tree_of(20)
    vectors, none = vectors_of(1), np.zeros(1, np.uint64)
    vectors[0, 3] = np.nan
    with pytest.raises(InputError, match=r"vectors\[0, 3\]: got nan, wanted a finite number"):
        tree.nearest(vectors)
    with pytest.raises(InputError, match=r"nodes: got 0\.\.0, the layers are range"):
        tree.put(ids[:1], np.zeros(1, np.uint32), none)
    with pytest.raises(InputError, match="ids: got 2, of which 1 are different"):
        ItemTree(np.zeros(2, np.uint64), vectors_of(2), np.zeros(2, np.uint64), TreeShape())
    with pytest.raises(InputError, match=r"fan_out: got 1, wanted an integer in 2\.\.1024"):
        ItemTree(ids, vectors_of(20), np.zeros(20, np.uint64), TreeShape(fan_out=1))
    last, first = np.array([tree.layers[-1].start], np.uint32), np.zeros(1, np.uint32)
    score = np.zeros(1, np.float32)
    for wrong in (lambda: tree.nodes_below(last, score, 1), lambda: tree.items_below(first, score, 1),
                  lambda: tree.items_below(np.array([tree.layers[-1].stop], np.uint32), score, 1)):  # fmt: skip
        with pytest.raises(InputError, match=r"nodes: got \d+\.\.\d+, the layers are range"):
            wrong()
    with pytest.raises(InputError, match="places: got 20, the tree has 20"):
        tree.ids(np.array([20], np.uint32))
    with pytest.raises(InputError, match="rows: got 19, the tree has 20 places"):
        tree.means(np.zeros((19, 2), np.float32))
