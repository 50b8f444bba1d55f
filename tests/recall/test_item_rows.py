"""Rows of items by id: those of a dict after any changes."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.recall.best_items import best_items
from pipeline.recall.item_rows import ItemRows


def test_rows_of_items_are_those_of_a_dict_after_changes():
    random, rows, wanted = np.random.default_rng(1), ItemRows(), {}
    for _ in range(300):
        ids = random.choice(60, 5).astype(np.uint64)
        if random.random() < 0.4:
            rows.remove(ids)
            for id in ids.tolist():
                wanted.pop(id, None)
        else:
            values = random.standard_normal((5, 3)).astype(np.float32)
            rows.put(ids, values)
            wanted |= zip(ids.tolist(), values, strict=True)
        if wanted:
            found = rows.take(np.array(list(wanted), np.uint64))
            np.testing.assert_array_equal(found, np.array(list(wanted.values())))


def test_an_unknown_item_has_no_row():
    rows = ItemRows()
    rows.put(np.array([1, 2], np.uint64), np.ones((2, 3), np.float32))
    rows.remove(np.array([1], np.uint64))
    with pytest.raises(InputError, match="item 1 has no row"):
        rows.take(np.array([2, 1], np.uint64))


def test_rows_of_another_number_than_ids_are_refused():
    with pytest.raises(InputError, match=r"rows: got float32 \[2, 3\], wanted float32 \[1, d\]"):
        ItemRows().put(np.array([1], np.uint64), np.ones((2, 3), np.float32))


@pytest.mark.parametrize("k", [1, 2, 7, 50, 51, 1_000])
def test_the_best_items_are_the_first_of_a_sort(k):
    random = np.random.default_rng(k)
    scores, ids = random.integers(0, 9, 50).astype(np.float32), random.permutation(50).astype(np.uint64)
    assert best_items(scores, ids, k).tolist() == np.lexsort((ids, -scores))[:k].tolist()
    assert best_items(scores[:0], ids[:0], k).tolist() == []
