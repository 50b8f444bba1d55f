"""Withheld rows against a dict, and the decay of their worth."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.importance.score import decayed
from pipeline.publish.price.withheld import ScoredRows, Withheld


def rows_of(random, count):
    keys = np.unique(random.integers(0, 300, count).astype(np.uint64))
    worth, value = random.random(len(keys), np.float32), random.random(len(keys), np.float32)
    return keys, worth, value, random.integers(0, 9, len(keys)).astype(np.uint32)


def test_withheld_rows_agree_with_a_dict():
    random, withheld_rows, model = np.random.default_rng(3), Withheld.empty(), {}
    for step in range(400):
        keys, *columns = rows_of(random, random.integers(0, 80))
        if step % 3 == 0:
            withheld = random.random(len(keys)) < 0.7
            withheld_rows = withheld_rows.updated(ScoredRows(keys, *columns, withheld))
            for key, *rest, stays in zip(keys.tolist(), *(each.tolist() for each in columns), withheld, strict=True):
                model.pop(key, None)
                model.update({key: tuple(rest)} if stays else {})
        elif step % 3 == 1:
            withheld_rows = withheld_rows.without(keys)
            model = {key: row for key, row in model.items() if key not in set(keys.tolist())}
        else:
            chosen = random.random(len(withheld_rows)) < 0.2
            taken, withheld_rows = withheld_rows.split(chosen)
            assert taken.tolist() == [key for key, out in zip(sorted(model), chosen, strict=True) if out]
            model = {key: row for key, row in model.items() if key not in set(taken.tolist())}
        assert withheld_rows.keys.tolist() == sorted(model)
        columns = withheld_rows.worth, withheld_rows.worth_per_byte, withheld_rows.seen_s
        assert list(zip(*(each.tolist() for each in columns), strict=True)) == [model[k] for k in sorted(model)]


def test_parts_are_concatenated_in_order():
    parts = [Withheld(np.uint64([k]), np.float32([k]), np.float32([2 * k]), np.uint32([3 * k])) for k in (1, 2, 7)]
    joined = Withheld.concatenated(parts)
    assert (joined.keys.tolist(), joined.worth.tolist()) == ([1, 2, 7], [1, 2, 7])
    assert (joined.worth_per_byte.tolist(), joined.seen_s.tolist()) == ([2, 4, 14], [3, 6, 21])
    assert len(Withheld.concatenated([])) == 0
    with pytest.raises(InputError, match="keys: got 1 after 7, wanted ascending keys"):
        Withheld.concatenated(parts[::-2])


@pytest.mark.parametrize(
    "odd",
    [
        [1.0, 2.0],
        np.ones(2),
        np.ones((2, 1), np.float32),
        np.ones(4, np.float32)[::2],
        np.ones(3, np.float32),
        np.broadcast_to(np.float32(1), 2**31),
    ],
    ids=["list", "doubles", "matrix", "apart", "too long", "2^31 elements that are one"],
)
def test_odd_columns_are_refused_by_name(odd):
    good, keys, yes, seen_s = (
        np.ones(2, np.float32),
        np.arange(2, dtype=np.uint64),
        np.ones(2, np.bool_),
        np.uint32([1, 2]),
    )
    with pytest.raises(InputError, match="worth: got "):
        Withheld(keys, odd, good, seen_s)
    with pytest.raises(InputError, match="worth_per_byte: got "):
        Withheld(keys, good, odd, seen_s)
    with pytest.raises(InputError, match="seen_s: got "):
        Withheld(keys, good, good, odd)
    with pytest.raises(InputError, match="worth_per_byte: got "):
        Withheld.empty().updated(ScoredRows(keys, good, odd, seen_s, yes))
    with pytest.raises(InputError, match="withheld: got "):
        Withheld.empty().updated(ScoredRows(keys, good, good, seen_s, odd))
    with pytest.raises(InputError, match="chosen: got "):
        Withheld(keys, good, good, seen_s).split(odd)


def test_keys_that_do_not_ascend_are_refused():
    good, seen_s = np.ones(2, np.float32), np.uint32([1, 2])
    for keys in (np.uint64([2, 1]), np.uint64([2, 2])):
        with pytest.raises(InputError, match=r"keys: got \d after 2, wanted ascending keys"):
            Withheld(keys, good, good, seen_s)


def test_worth_halves_with_each_half_life_without_an_occurrence():
    random = np.random.default_rng(4)
    worth = random.random(1000, np.float32)
    seen_s = random.integers(0, 500, 1000).astype(np.uint32)
    rows = Withheld(np.arange(1000, dtype=np.uint64), worth, worth / 8, seen_s)
    for at_s in (0, 250, 499, 2**32 - 1):
        wanted = decayed(worth, seen_s, at_s, 60.0)
        now, per_byte = rows.worth_at(at_s, 60.0)
        np.testing.assert_allclose(now, wanted, rtol=1e-6)
        np.testing.assert_allclose(per_byte, wanted / 8, rtol=1e-6)
    with pytest.raises(InputError, match="at_s, seconds since 1970: got -1"):
        rows.worth_at(-1, 60.0)
